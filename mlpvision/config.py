"""Checks a config before anything expensive starts, and compares it with the config of an existing run."""

from collections.abc import Mapping
import json
import re
from typing import Any

import ml_collections

from mlpvision.data import datasets, randaugment, rows
from mlpvision.errors import UserError

# A row of the table is (whether a value is valid, the valid values in words).


def _is_in(*names):
  return lambda x: isinstance(x, str) and x in names, f"one of {', '.join(names)}"


def _number(fits, words):
  return lambda x: _is_number(x) and fits(x), words


def _integer(fits, words):
  return lambda x: type(x) is int and abs(x) < 2**32 and fits(x), words


def _numbers(length, fits, words):
  """A tuple of finite numbers; fits(*numbers)."""
  return lambda x: isinstance(x, tuple | list) and len(x) == length and all(map(_is_number, x)) and fits(*x), words


def _duration(units, *others, zero=False):
  """A positive (or zero) number with one of the units, or one of the other strings."""
  words = " or ".join(f'"{example}"' for example in (*(_EXAMPLES[unit] for unit in units), *others))

  def fits(x):
    number, unit = _parse_duration(x)
    is_duration = unit in units and (number > 0 or zero) and number <= _MAX_STEPS
    return isinstance(x, str) and (x in others or is_duration)

  return fits, f"write {words}"


def _durations(units):
  """A tuple of durations with one of the units."""
  fits, _ = _duration(units)
  words = ", ".join(f'"{_EXAMPLES[unit]}"' for unit in units)
  return lambda x: isinstance(x, tuple | list) and all(map(fits, x)), f"must be a tuple of durations such as {words}"


def _pairs(fits_second, words):
  """A tuple of (string, value) pairs."""

  def is_pair(x):
    return isinstance(x, tuple | list) and len(x) == 2 and isinstance(x[0], str) and fits_second(x[1])

  return lambda x: isinstance(x, tuple | list) and all(map(is_pair, x)), words


def _is_number(x):
  return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= _LARGEST


def _is_side(x):
  return 32 <= x <= 4096 and x % 32 == 0


def _sides(words):
  """A tuple of lengths in pixels."""

  def fits(x):
    return isinstance(x, tuple | list) and bool(x) and all(type(v) is int and 1 <= v <= 4096 for v in x)

  return fits, words


_LARGEST = 3e38  # of float32; NaN and infinity are not within
_MAX_STEPS = 2**31 - 1  # the state counts steps in int32
_EXAMPLES = {"step": "10000 steps", "epoch": "20 epochs", "second": "10 seconds", "minute": "30 minutes"}
_EXAMPLES["hour"] = "1 hour"
_WRITERS = ("tensorboard", "wandb", "mlflow")
_STEPS, _TIMES = ("step", "epoch"), ("minute", "hour")

_TEXT = (lambda x: isinstance(x, str), "a string")
_NAME = (lambda x: isinstance(x, str) and bool(x), "a string that is not empty")
_SHARE = _number(lambda x: 0 <= x < 1, "must be in [0, 1)")
_PROBABILITY = _number(lambda x: 0 <= x <= 1, "a probability, in [0, 1]")
_FLAG = (lambda x: isinstance(x, bool), "must be True or False")
_COUNT = _integer(lambda x: x >= 1, "must be a positive integer")
_POSITIVE = _number(lambda x: x > 0, "must be positive")
_NOT_NEGATIVE = _number(lambda x: x >= 0, "must be positive, or 0 for none")
_AXIS = _integer(lambda x: x == -1 or x >= 1, "must be a positive integer, or -1 for all remaining devices")
_SEED = _integer(lambda x: x >= 0, "must be an integer in [0, 2^32)")
_MEAN = _numbers(3, lambda *x: all(0 <= v <= 1 for v in x), "must be 3 numbers in [0, 1], for pixels in [0, 1]")
_STD = _numbers(3, lambda *x: all(1e-4 <= v <= 1 for v in x), "must be 3 numbers in [1e-4, 1], for pixels in [0, 1]")

# Fields that evaluation reads.
_EVALUATION = {
  "seed": _SEED,
  "data.image_size": _integer(lambda x: 1 <= x <= 4096, "must be an integer in [1, 4096]"),
  "data.mean": _MEAN,
  "data.std": _STD,
  "data.workers": _integer(lambda x: x >= -1, "must be -1 (automatic), 0 or more"),
  "data.prefetch": _COUNT,
  "eval.batch_size": _COUNT,
  "eval.crop_ratio": _number(lambda x: 0.1 <= x <= 1, "must be in [0.1, 1]"),
  "eval.interpolation": _is_in("bicubic", "bilinear"),
}
# Those that the evaluation of segmentation reads too.
_SEGMENTATION = {
  "data.scale": _numbers(2, lambda *x: all(1 <= v <= 16384 for v in x), "must be 2 sides in pixels, in [1, 16384]"),
  "data.reduce_zero_label": _FLAG,
  "data.classes": _TEXT,
  "eval.mode": _is_in("whole", "slide"),
  "eval.stride": (
    lambda x: isinstance(x, tuple | list) and len(x) == 2 and all(type(v) is int and v >= 1 for v in x),
    "must be 2 positive integers, in pixels",
  ),
  "eval.scales": (
    lambda x: isinstance(x, tuple | list) and bool(x) and all(_is_number(v) and 0.1 <= v <= 8 for v in x),
    "must be ratios in [0.1, 8], such as (0.5, 1.0)",
  ),
  "eval.flip": _FLAG,
}
# Those that the evaluation of detection reads too.
_DETECTION = {
  "data.scale": _SEGMENTATION["data.scale"],
  "data.canvas": (
    lambda x: isinstance(x, tuple | list) and len(x) == 2 and all(type(v) is int and _is_side(v) for v in x),
    "must be 2 multiples of 32 in pixels, up to 4096",
  ),
}
# A row for each field of configs/default.py, and for those of optim.kwargs that mean the same in all optimizers. "*" is
# any name. What depends on data, devices, the task or the model is checked where it is built, before the first step.
_FIELDS = {
  "init_from": _TEXT,
  "task": (lambda x: isinstance(x, str) and x in rows.ROWS, f"one of {', '.join(rows.ROWS)}"),
  "duration": _duration(_STEPS),
  "loss": _NAME,  # the task has the names
  "label_smoothing": _SHARE,
  "auxiliary_loss": _NOT_NEGATIVE,
  "ema_decay": _SHARE,
  "distill.teacher": _TEXT,
  "distill.loss": _is_in("soft", "hard"),
  "distill.temperature": _POSITIVE,
  "accumulation_steps": _COUNT,
  "model.name": _NAME,
  "model.dtype": _is_in("float32", "bfloat16"),
  "model.drop_path": _SHARE,
  "model.dropout": _SHARE,
  "model.remat": _is_in("none", "block", "preactivations"),
  "data.name": _NAME,
  "data.data_dir": (lambda x: x is None or isinstance(x, str), "a directory, or None"),
  "data.train_split": _NAME,
  "data.reads": _integer(lambda x: x == -1 or 1 <= x <= 65536, "must be -1 (automatic), or in [1, 65536]"),
  "data.eval_split": _NAME,
  "data.batch_size": _COUNT,
  "data.max_objects": _integer(lambda x: 1 <= x <= 1000, "must be an integer in [1, 1000]"),
  "augment.resize_ratio": _numbers(2, lambda low, high: 0.1 <= low <= high <= 8, "must be (low, high), in [0.1, 8]"),
  "augment.cat_max_ratio": _number(lambda x: 0 < x <= 1, "must be in (0, 1]; 1 accepts every crop"),
  "augment.photometric": _FLAG,
  "augment.short_sides": _sides("must be lengths in pixels, such as (480, 800), up to 4096"),
  "augment.crop_probability": _PROBABILITY,
  "augment.crop_short_sides": _sides("must be lengths in pixels, such as (400, 500, 600), up to 4096"),
  "augment.crop_sides": _numbers(
    2, lambda low, high: type(low) is type(high) is int and 1 <= low <= high, "must be (low, high) in pixels"
  ),
  "augment.crop": _is_in("random_resized", "affine", "center"),
  "augment.crop_scale": _numbers(2, lambda low, high: 0 < low <= high <= 1, "must be (low, high) in (0, 1]"),
  "augment.crop_ratio": _numbers(2, lambda low, high: 0 < low <= high, "must be (low, high), both positive"),
  "augment.rotation": _number(lambda x: 0 <= x <= 180, "must be in [0, 180] degrees"),
  "augment.zoom": _SHARE,
  "augment.shift": _NOT_NEGATIVE,
  "augment.randaugment": _TEXT,
  "augment.repeats": _COUNT,
  "augment.flip": _PROBABILITY,
  "augment.random_erasing": _PROBABILITY,
  "augment.mixup": _NOT_NEGATIVE,
  "augment.cutmix": _NOT_NEGATIVE,
  "optim.name": _NAME,
  "optim.learning_rate": _POSITIVE,
  "optim.weight_decay": _NOT_NEGATIVE,
  "optim.decay_mask": _TEXT,
  "optim.clip_norm": _NOT_NEGATIVE,
  "optim.sam_rho": _NOT_NEGATIVE,
  "optim.lr_multipliers": _pairs(
    lambda factor: _is_number(factor) and factor >= 0, "must be (regex, factor) pairs, with factors of 0 or more"
  ),
  "optim.kwargs.b1": _SHARE,
  "optim.kwargs.b2": _SHARE,
  "optim.kwargs.eps": _NOT_NEGATIVE,
  "optim.kwargs.momentum": _SHARE,
  "optim.layer_decay": _number(lambda x: 0 < x <= 1, "must be in (0, 1]; 1 is none"),
  "optim.nonfinite": _is_in("stop", "skip"),
  "optim.schedule.name": _is_in("cosine", "linear", "step", "constant"),
  "optim.schedule.warmup": _duration(_STEPS, zero=True),
  "optim.schedule.start": _NOT_NEGATIVE,
  "optim.schedule.end": _NOT_NEGATIVE,
  "optim.schedule.clock": _is_in("warmup", "zero", "product"),
  "optim.schedule.every": _duration(_STEPS),
  "optim.schedule.delay": _duration(_STEPS, zero=True),
  "optim.schedule.milestones": _durations(_STEPS),
  "optim.schedule.factor": _number(lambda x: 0 < x <= 1, "must be in (0, 1]"),
  "eval.every": _duration(_STEPS),
  "evals.*.type": _NAME,  # the evaluators have the names
  "evals.*.every": _duration(_STEPS, "", "never"),
  "evals.*.name": _TEXT,
  "evals.*.split": _TEXT,
  "evals.*.train_split": _TEXT,
  "evals.*.shots": (
    lambda x: isinstance(x, tuple | list) and bool(x) and all(type(v) is int and v >= 0 for v in x),
    "must be numbers of images per class, such as (5, 10); 0 takes all",
  ),
  "checkpoint.every": _duration(_STEPS + _TIMES),
  "checkpoint.keep": _COUNT,
  "checkpoint.best": _TEXT,
  "mesh.data": _AXIS,
  "mesh.fsdp": _AXIS,
  "mesh.model": _AXIS,
  "mesh.shard_update": _FLAG,
  "mesh.rules": _pairs(lambda axes: isinstance(axes, tuple | list), "must be (regex, axes) pairs"),
  "hang_timeout": _duration(_TIMES),
  "profile": (
    lambda x: isinstance(x, str) and (not x or profiled_steps(x) is not None),
    'write "FIRST:LAST", two steps of the run, such as "100:110"',
  ),
  "log_every": _duration(_STEPS),
  "reporting.writers": (
    lambda x: isinstance(x, tuple | list) and all(name in _WRITERS for name in x) and len(set(x)) == len(x),
    f'must be a tuple of {", ".join(map(repr, _WRITERS))}, such as ("tensorboard",)',
  ),
  "print_every": _duration(("second", *_TIMES), ""),
  **_EVALUATION,
  **_SEGMENTATION,
  **_DETECTION,
}
# Of all other fields, which are options of models and optimizers.
_OTHER = (lambda x: not isinstance(x, float) or _is_number(x), "must be finite")

# Fields that may differ when a run is resumed: they change results by no more than rounding.
_FREE = (
  "checkpoint",
  "data.data_dir",
  "data.prefetch",
  "data.reads",
  "data.workers",
  "eval",
  "evals",
  "hang_timeout",
  "log_every",
  "mesh",
  "model.remat",
  "print_every",
  "profile",
  "reporting",
)


def check(config: ml_collections.ConfigDict, *, dataset: bool = True) -> None:
  """Raises one UserError with all problems that can be found without starting JAX.

  dataset: also check that the dataset is available.
  """
  wrong = _problems(config, _FIELDS, _OTHER)
  problems = list(wrong.values())
  try:
    if dataset and not wrong.keys() & {"data.name", "data.data_dir", "data.classes"}:
      datasets.check(config.data.name, config.data.data_dir, task=config.task, classes=config.data.classes)
  except UserError as error:
    problems.append(str(error))
  if "augment.randaugment" not in wrong and config.augment.randaugment:
    try:
      randaugment.parse(config.augment.randaugment, fill=(0, 0, 0))
    except UserError as error:
      problems.append(f"augment.randaugment: {error}")
  if not wrong.keys() & {"data.batch_size", "augment.repeats", "accumulation_steps"}:
    batch_size, parts, repeats = config.data.batch_size, config.accumulation_steps, config.augment.repeats
    if repeats > batch_size:
      problems.append(f"augment.repeats={repeats}: must be from 1 (off) to data.batch_size={batch_size}")
    if batch_size % parts:
      problems.append(f"accumulation_steps={parts}: must divide data.batch_size={batch_size}")
  if config.get("task") == "detection" and not wrong.keys() & {"data.canvas", "data.scale", "augment.short_sides"}:
    problems += _canvas_problems(config, max(config.augment.short_sides))
  if problems:
    raise UserError("\n\n".join(problems))


def _canvas_problems(config, short=0):
  """An image that is resized to data.scale, or whose shorter side is resized to `short`, must fit the canvas."""
  canvas, scale = config.data.canvas, config.data.scale
  shown, problems = f"data.canvas={tuple(canvas)}", []
  if max(scale) > max(canvas) or min(scale) > min(canvas):
    problems.append(f"data.scale={tuple(scale)}: must fit {shown}")
  if short > min(canvas):
    problems.append(f"augment.short_sides: {short} must not be larger than the shorter side of {shown}")
  return problems


def check_evaluation(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for invalid values of the fields that evaluation reads."""
  of_task = {"segmentation": _SEGMENTATION, "detection": _DETECTION}.get(config.get("task"), {})
  problems = list(_problems(config, {**_EVALUATION, **of_task}).values())
  if config.get("task") == "detection" and not problems:
    problems = _canvas_problems(config)
  if problems:
    raise UserError("\n\n".join(problems))


def _problems(config, fields, other=None):
  """{field: "field=value: the valid values"}; `other` is the row of fields that the table does not have."""
  values = _flatten(config.to_dict())
  required = (field for field in fields if "*" not in field and not field.startswith("optim.kwargs."))
  problems = {field: f"{field}: is missing" for field in required if field not in values}
  for field, value in values.items():
    row = fields.get(re.sub(r"^evals\.[^.]*\.", "evals.*.", field), other)
    if row and not row[0](value):
      problems[field] = f"{field}={value!r}: {row[1]}"
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
  return str(name).startswith(("folder:", "coco:", "hf:/", "hf:.", "hf:~", "/", ".", "~"))


def _flatten(tree, prefix=""):
  flat = {}
  for key, value in tree.items():
    flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
  return flat


def to_steps(duration: str, *, field: str, batch_size: int, num_images: int) -> int:
  """The number of steps in `duration`, rounded; `field` is the config field that the error names."""
  number, unit = _parse_duration(duration)
  if unit not in _STEPS:
    raise UserError(f'{field} is {duration!r}: write a number and a unit, such as "20 epochs" or "10000 steps"')
  steps = number if unit == "step" else number * num_images / batch_size
  if steps > _MAX_STEPS:
    raise UserError(f"{field}={duration!r} is more than {_MAX_STEPS:,} steps")
  return round(steps)


def to_seconds(duration: str) -> float | None:
  """Seconds of a duration in seconds, minutes or hours; None for other units."""
  number, unit = _parse_duration(duration)
  factor = {"second": 1, "minute": 60, "hour": 3600}.get(unit)
  return None if factor is None else number * factor


def _parse_duration(text):
  """(number, unit without s) of a duration; (0.0, None) if it is none."""
  match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(step|epoch|second|minute|hour)s?\s*", str(text))
  return (float(match[1]), match[2]) if match else (0.0, None)
