"""Durations in configs: a number and a unit, such as "20 epochs", "10000 steps" or, for some, "10 minutes"."""

import re

from mlpvision.errors import UserError

_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(step|epoch)s?\s*")


def to_steps(duration: str, *, field: str, batch_size: int, num_images: int) -> int:
  """The whole number of steps in `duration`; `field` names the config's field in the error."""
  match = _PATTERN.fullmatch(str(duration))
  if not match:
    raise UserError(f'{field} is {duration!r}: write a number and a unit, such as "20 epochs" or "10000 steps"')
  number = float(match[1])
  return round(number if match[2] == "step" else number * num_images / batch_size)


def to_seconds(duration: str) -> float | None:
  """The seconds of a duration in minutes or hours, or None for any other."""
  match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(minute|hour)s?\s*", str(duration))
  return match and float(match[1]) * {"minute": 60, "hour": 3600}[match[2]]
