"""What can be said of a config before anything expensive starts: its errors, and what differs from an older one."""

from collections.abc import Mapping
import functools
import json
import re
from typing import Any

import ml_collections

from mlpvision.data import datasets, randaugment
from mlpvision.errors import UserError

# A number and a unit, such as "20 epochs" or "10000 steps".
_DURATION = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(step|epoch)s?\s*")

_REMAT = ("none", "block", "preactivations")
_CROPS = ("random_resized", "affine", "center")

# Numbers of a config: which ones will do, as a test and in words.
_RANGES = (
  ("label_smoothing", lambda x: 0 <= x < 1, "must lie in [0, 1)"),
  ("ema_decay", lambda x: 0 <= x < 1, "must lie in [0, 1); 0 keeps no average"),
  ("model.drop_path", lambda x: 0 <= x < 1, "must lie in [0, 1)"),
  ("model.dropout", lambda x: 0 <= x < 1, "must lie in [0, 1)"),
  ("model.remat", lambda x: x in _REMAT, f"one of {', '.join(_REMAT)}"),
  ("data.image_size", lambda x: x >= 1, "must be positive"),
  ("data.workers", lambda x: x >= -1, "must not be negative; -1 chooses"),
  ("data.prefetch", lambda x: x >= 1, "must be positive"),
  ("checkpoint.keep", lambda x: x >= 1, "must be positive"),
  ("optim.learning_rate", lambda x: x > 0, "must be positive"),
  ("optim.weight_decay", lambda x: x >= 0, "must be positive, or 0 for none"),
  ("optim.clip_norm", lambda x: x >= 0, "must be positive, or 0 for no clipping"),
  ("optim.layer_decay", lambda x: 0 < x <= 1, "must lie in (0, 1]; 1 is none"),
  ("optim.schedule.start", lambda x: x >= 0, "must not be negative"),
  ("optim.schedule.end", lambda x: x >= 0, "must not be negative"),
)

# Fields that may change when a run is continued: they do not change what is computed, beyond rounding.
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
  """Raises one UserError with everything that is wrong, as far as it shows without starting JAX.

  dataset: whether a dataset that is not there is wrong.
  """
  problems = []
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
  if not 1 <= config.augment.repeats <= max(1, config.data.batch_size):
    problems.append(f"augment.repeats={config.augment.repeats}: from 1 (none) to data.batch_size")
  for field in ("mixup", "cutmix"):
    if config.augment[field] < 0:
      problems.append(f"augment.{field}={config.augment[field]}: must be positive, or 0 for none")
  for field in ("flip", "random_erasing"):
    if not 0 <= config.augment[field] <= 1:
      problems.append(f"augment.{field}={config.augment[field]}: a probability, in [0, 1]")
  for field, fits, words in _RANGES:
    value = functools.reduce(lambda tree, key: tree[key], field.split("."), config)
    if not fits(value):
      problems.append(f"{field}={value}: {words}")
  if config.augment.crop not in _CROPS:
    problems.append(f"augment.crop={config.augment.crop!r}: one of {', '.join(_CROPS)}")
  if config.optim.nonfinite not in ("stop", "skip"):
    problems.append(f"optim.nonfinite={config.optim.nonfinite!r}: 'stop' or 'skip'")
  if to_seconds(config.hang_timeout) is None:
    problems.append(f'hang_timeout={config.hang_timeout!r}: write "30 minutes" or "1 hour"')
  parts = config.accumulation_steps
  if config.profile and profiled_steps(config) is None:
    problems.append(f'profile={config.profile!r}: write "FIRST:LAST", two steps of the run, such as "100:110"')
  if config.data.batch_size < 1:
    problems.append(f"data.batch_size={config.data.batch_size}: must be positive")
  elif parts < 1 or config.data.batch_size % parts:
    problems.append(f"accumulation_steps={parts} does not divide data.batch_size={config.data.batch_size}")
  try:
    check_evaluation(config)
  except UserError as error:
    problems.append(str(error))
  if problems:
    raise UserError("\n\n".join(problems))


def profiled_steps(config: ml_collections.ConfigDict) -> tuple[int, int] | None:
  """(first, last) step of config.profile; None where it is empty, or not two steps in order."""
  match = re.fullmatch(r"(\d+):(\d+)", config.profile)
  steps = match and (int(match[1]), int(match[2]))
  return steps if steps and 1 <= steps[0] <= steps[1] else None


def check_evaluation(config: ml_collections.ConfigDict) -> None:
  """The part of `check` that evaluation alone needs."""
  if config.eval.batch_size < 1:
    raise UserError(f"eval.batch_size={config.eval.batch_size}: must be positive")
  if not 0 < config.eval.crop_ratio <= 1:
    raise UserError(f"eval.crop_ratio={config.eval.crop_ratio}: must lie in (0, 1]")
  if config.eval.interpolation not in ("bicubic", "bilinear"):
    raise UserError(f"eval.interpolation={config.eval.interpolation!r}: 'bicubic' or 'bilinear'")


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as nested dicts and lists, as JSON gives it back."""
  return json.loads(config.to_json())


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Lines "field: old -> new" for what would change a run that is continued; both as from `to_json`."""
  old, new = _flatten(old), _flatten(new)
  lines = []
  for field in sorted(old.keys() | new.keys()):
    is_free = any(field == free or field.startswith(f"{free}.") for free in _FREE)
    if not is_free and old.get(field, "absent") != new.get(field, "absent"):
      lines.append(f"{field}: {old.get(field, 'absent')!r} -> {new.get(field, 'absent')!r}")
  return lines


def _flatten(tree, prefix=""):
  flat = {}
  for key, value in tree.items():
    flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
  return flat


def to_steps(duration: str, *, field: str, batch_size: int, num_images: int) -> int:
  """The whole number of steps in `duration`; `field` names the config's field in the error."""
  match = _DURATION.fullmatch(str(duration))
  if not match:
    raise UserError(f'{field} is {duration!r}: write a number and a unit, such as "20 epochs" or "10000 steps"')
  number = float(match[1])
  return round(number if match[2] == "step" else number * num_images / batch_size)


def to_seconds(duration: str) -> float | None:
  """The seconds of a duration in minutes or hours, or None for any other."""
  match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(minute|hour)s?\s*", str(duration))
  return match and float(match[1]) * {"minute": 60, "hour": 3600}[match[2]]
