"""Checks a config before anything expensive starts, and compares it with the config of an existing run."""

from collections.abc import Mapping
import functools
import json
import re
from typing import Any

import ml_collections

from mlpvision.data import datasets, randaugment
from mlpvision.errors import UserError


def _is_in(*names):
  return lambda x: x in names, f"one of {', '.join(names)}"


_SHARE = (lambda x: 0 <= x < 1, "must be in [0, 1)")
_PROBABILITY = (lambda x: 0 <= x <= 1, "a probability, in [0, 1]")
_COUNT = (lambda x: x >= 1, "must be positive")
_NOT_NEGATIVE = (lambda x: x >= 0, "must be positive, or 0 for none")

# Fields that evaluation reads.
_EVALUATION = {
  "eval.batch_size": _COUNT,
  "eval.crop_ratio": (lambda x: 0 < x <= 1, "must be in (0, 1]"),
  "eval.interpolation": _is_in("bicubic", "bilinear"),
}
# {field: (test of a value, the valid values in words)}
_FIELDS = {
  "label_smoothing": _SHARE,
  "ema_decay": _SHARE,
  "model.drop_path": _SHARE,
  "model.dropout": _SHARE,
  "model.remat": _is_in("none", "block", "preactivations"),
  "data.batch_size": _COUNT,
  "data.image_size": _COUNT,
  "data.workers": (lambda x: x >= -1, "must be -1 (automatic), 0 or more"),
  "data.prefetch": _COUNT,
  "augment.crop": _is_in("random_resized", "affine", "center"),
  "augment.flip": _PROBABILITY,
  "augment.random_erasing": _PROBABILITY,
  "augment.mixup": _NOT_NEGATIVE,
  "augment.cutmix": _NOT_NEGATIVE,
  "checkpoint.keep": _COUNT,
  "optim.learning_rate": (lambda x: x > 0, "must be positive"),
  "optim.weight_decay": _NOT_NEGATIVE,
  "optim.clip_norm": _NOT_NEGATIVE,
  "optim.layer_decay": (lambda x: 0 < x <= 1, "must be in (0, 1]; 1 is none"),
  "optim.nonfinite": _is_in("stop", "skip"),
  "optim.schedule.start": _NOT_NEGATIVE,
  "optim.schedule.end": _NOT_NEGATIVE,
  "hang_timeout": (lambda x: to_seconds(x) is not None, 'write "30 minutes" or "1 hour"'),
  "profile": (lambda x: not x or profiled_steps(x), 'write "FIRST:LAST", two steps of the run, such as "100:110"'),
  **_EVALUATION,
}

# Fields that may differ when a run is resumed: they change results by no more than rounding.
_FREE = (
  "checkpoint",
  "data.data_dir",
  "data.prefetch",
  "data.workers",
  "eval",
  "evals",
  "hang_timeout",
  "log_every",
  "mesh",
  "model.remat",
  "profile",
)


def check(config: ml_collections.ConfigDict, *, dataset: bool = True) -> None:
  """Raises one UserError with all problems that can be found without starting JAX.

  dataset: also check that the dataset is available.
  """
  problems = _problems(config, _FIELDS)
  try:
    if dataset:
      datasets.check(config.data.name, config.data.data_dir)
  except UserError as error:
    problems.append(str(error))
  if config.augment.randaugment:
    try:
      randaugment.parse(config.augment.randaugment, fill=(0, 0, 0))
    except UserError as error:
      problems.append(f"augment.randaugment: {error}")
  batch_size, parts = config.data.batch_size, config.accumulation_steps
  if not 1 <= config.augment.repeats <= max(1, batch_size):
    problems.append(f"augment.repeats={config.augment.repeats}: must be from 1 (off) to data.batch_size")
  if parts < 1 or batch_size % parts:
    problems.append(f"accumulation_steps={parts}: must be positive and divide data.batch_size={batch_size}")
  if problems:
    raise UserError("\n\n".join(problems))


def check_evaluation(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for invalid values of the fields that evaluation reads."""
  if problems := _problems(config, _EVALUATION):
    raise UserError("\n\n".join(problems))


def _problems(config, fields):
  problems = []
  for field, (fits, words) in fields.items():
    value = functools.reduce(lambda tree, key: tree[key], field.split("."), config)
    if not fits(value):
      problems.append(f"{field}={value!r}: {words}")
  return problems


def profiled_steps(text: str) -> tuple[int, int] | None:
  """(first, last) of "FIRST:LAST"; None if `text` is not of this form with 1 <= FIRST <= LAST."""
  match = re.fullmatch(r"(\d+):(\d+)", text)
  steps = match and (int(match[1]), int(match[2]))
  return steps if steps and 1 <= steps[0] <= steps[1] else None


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as nested dicts and lists, as after a round trip through JSON."""
  return json.loads(config.to_json())


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Lines "field: old -> new" for the changes that a resumed run must not have; `old` and `new` as from `to_json`.

  A dataset named by its path may have moved; whether it has the same images is known once it is open.
  """
  old, new = _flatten(old), _flatten(new)
  lines, free = [], tuple(f"{field}." for field in _FREE)
  for field in sorted(old.keys() | new.keys()):
    before, after = old.get(field, "absent"), new.get(field, "absent")
    has_moved = field == "data.name" and _is_path(before) and _is_path(after)
    if before != after and not has_moved and not f"{field}.".startswith(free):
      lines.append(f"{field}: {before!r} -> {after!r}")
  return lines


def _is_path(name):
  return str(name).startswith(("folder:", "/", ".", "~"))


def _flatten(tree, prefix=""):
  flat = {}
  for key, value in tree.items():
    flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
  return flat


def to_steps(duration: str, *, field: str, batch_size: int, num_images: int) -> int:
  """The number of steps in `duration`, rounded; `field` is the config field that the error names."""
  match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(step|epoch)s?\s*", str(duration))
  if not match:
    raise UserError(f'{field} is {duration!r}: write a number and a unit, such as "20 epochs" or "10000 steps"')
  number = float(match[1])
  return round(number if match[2] == "step" else number * num_images / batch_size)


def to_seconds(duration: str) -> float | None:
  """Seconds of a duration in minutes or hours; None for other units."""
  match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(minute|hour)s?\s*", str(duration))
  return match and float(match[1]) * {"minute": 60, "hour": 3600}[match[2]]
