"""Checks a config before anything expensive starts, and compares it with the config of an existing run."""

from collections.abc import Mapping
import json
import re
from typing import Any

import ml_collections

from mlpvision import config_fields
from mlpvision.data import datasets, randaugment
from mlpvision.errors import UserError


def check(config: ml_collections.ConfigDict, *, dataset: bool = True) -> None:
  """Raises one UserError with all problems that can be found without starting JAX.

  dataset: also check that the dataset is available.
  """
  wrong = _problems(config, config_fields.FIELDS, config_fields.OTHER)
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
  of_task = {"segmentation": config_fields.SEGMENTATION, "detection": config_fields.DETECTION}.get(
    config.get("task"), {}
  )
  problems = list(_problems(config, {**config_fields.EVALUATION, **of_task}).values())
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


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as nested dicts and lists, as after a round trip through JSON."""
  return json.loads(config.to_json())


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Lines "field: old -> new" for the changes that a resumed run must not have; `old` and `new` as from `to_json`.

  A dataset named by its path may have moved; whether it has the same images is known once it is open.
  """
  old, new = _flatten(old), _flatten(new)
  lines, free = [], tuple(f"{field}." for field in config_fields.FREE)
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
