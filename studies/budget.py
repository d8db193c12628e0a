"""Holds the parameters or the multiply-accumulates of a study's models equal, by their width."""

from collections.abc import Mapping
import dataclasses
import functools
import math
import re
from typing import Any

import jax.numpy as jnp

from mlpvision import models
from mlpvision.errors import UserError
from mlpvision.models import cost
from studies.grids import Study

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclasses.dataclass(frozen=True)
class Budget:
  """kind: "parameters" or "macs"; amount: of a model, macs those of one image; None for as many as the base model."""

  kind: str
  amount: int | None = None


def parse(text: str) -> Budget:
  """ "macs", "macs:4.2M" or "parameters:300K" as a Budget; UserError for anything else."""
  match = re.fullmatch(r"(parameters|macs)(?::(\d+(?:\.\d+)?)([KMG]?))?", text)
  amount = match and match[2] and round(float(match[2]) * _UNITS[match[3]])
  if not match or amount == 0:
    raise UserError(f'--budget={text!r}: give "parameters" or "macs", or an amount as well, such as "macs:4.2M"')
  return Budget(match[1], amount or None)


def fit(
  study: Study, base: Mapping[str, Any], budget: Budget, image_size: int, *, on_laptop: bool
) -> tuple[Study, dict[str, dict[str, int]]]:
  """The study with the width at which each row's model comes closest to the budget.

  The width is hidden_dim; the widths of a pyramid's stages keep their proportions. Widths are multiples of 4, and of
  the number of heads or segments where the model has them. Other sizes (a Mixer's tokens_mlp_dim) stay as they are, and
  the classifier's head does not count.

  Args:
    study: of `grids.STUDIES`.
    base: fields of config.model that rows change, with its name.
    budget: what to hold.
    image_size: of the training images, pixels.
    on_laptop: whether rows use their `laptop` fields.

  Returns:
    The study, with the widths in its rows and their labels, and {label: `cost.count`}.

  Raises:
    UserError: two rows become the same model, or the budget has no amount and the study no base model.
  """
  if not budget.amount and "name" not in base:
    raise UserError(f'--budget={budget.kind}: the models have none in common, so give an amount: "{budget.kind}:4.2M"')
  amount = budget.amount or _count(base, image_size)[budget.kind]
  rows, counts = [], {}
  for row in study.rows:
    fields = {**base, **row.model(on_laptop)}
    width = _closest(fields, budget.kind, amount, image_size)
    label = f"{row.label}, {'/'.join(map(str, width)) if isinstance(width, tuple) else width} channels"
    fitted = {**row.model(on_laptop), "hidden_dim": width}
    if any(fitted == other.model(on_laptop) for other in rows):
      raise UserError(f"{row.label}: at equal {budget.kind}, this is the model of another row; the study varies widths")
    rows.append(dataclasses.replace(row, label=label, change=fitted, laptop=None))
    counts[label] = _count({**base, **fitted}, image_size)
  return dataclasses.replace(study, rows=tuple(rows)), counts


def _closest(fields, kind, amount, image_size):
  """The hidden_dim at which the count is closest to the amount; counts grow with the width."""
  module = _create(fields)
  start = module.hidden_dim
  first = start[0] if isinstance(start, tuple) else start
  heads = getattr(module, "num_heads", ())
  step = math.lcm(4, *([heads] if isinstance(heads, int) else heads), getattr(module, "segments", 1) or 1)

  def widths(n):
    if isinstance(start, tuple):
      return tuple(max(1, round(n * width / first)) * step for width in start)
    return n * step

  @functools.cache
  def at(n):
    return _count({**fields, "hidden_dim": widths(n)}, image_size)[kind]

  # Counts grow about as the square of the width.
  n = max(1, round(first / step))
  n = max(1, round(n * math.sqrt(amount / at(n))))
  while at(n) < amount:
    n += 1
  while n > 1 and at(n - 1) >= amount:
    n -= 1
  return widths(min((n, max(1, n - 1)), key=lambda n: abs(at(n) - amount)))


def _create(fields):
  return models.create(**{**fields, "num_classes": None, "dtype": jnp.float32})


def _count(fields, image_size):
  return cost.count(_create(fields), image_size)
