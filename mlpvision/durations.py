"""Durations as configs have them, such as "20 epochs" or "30 minutes", and spans of steps."""

import re
from typing import Any

from mlpvision.errors import UserError

MAX_STEPS = 2**31 - 1  # the state counts steps in int32


def to_steps(duration: str, *, field: str, batch_size: int, num_images: int) -> int:
  """The number of steps in `duration`, rounded; `field` is the config field that the error names."""
  number, unit = parse(duration)
  if unit not in ("step", "epoch"):
    raise UserError(f'{field} is {duration!r}: write a number and a unit, such as "20 epochs" or "10000 steps"')
  steps = number if unit == "step" else number * num_images / batch_size
  if steps > MAX_STEPS:
    raise UserError(f"{field}={duration!r} is more than {MAX_STEPS:,} steps")
  return round(steps)


def to_seconds(duration: str) -> float | None:
  """Seconds of a duration in seconds, minutes or hours; None for other units."""
  number, unit = parse(duration)
  factor = {"second": 1, "minute": 60, "hour": 3600}.get(unit)
  return None if factor is None else number * factor


def parse(text: Any) -> tuple[float, str | None]:
  """(number, unit without s) of a duration; (0.0, None) if it is none."""
  match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(step|epoch|second|minute|hour)s?\s*", str(text))
  return (float(match[1]), match[2]) if match else (0.0, None)


def profiled_steps(text: str) -> tuple[int, int] | None:
  """(first, last) of "FIRST:LAST"; None if `text` is not of this form with 1 <= FIRST <= LAST."""
  match = re.fullmatch(r"(\d+):(\d+)", text)
  steps = match and (int(match[1]), int(match[2]))
  return steps if steps and 1 <= steps[0] <= steps[1] else None
