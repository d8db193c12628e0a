"""The mean of several trained models' parameters (stochastic weight averaging, arXiv 1803.05407)."""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import numpy as np

from mlpvision import trained as trained_lib
from mlpvision.errors import UserError
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights.loading import RUN_OPTIONS

_SHOWN = 3  # differences in a message


def average(
  sources: Sequence[str | os.PathLike], *, ema: bool | None = None, preprocessing: Preprocessing | str | None = None
) -> trained_lib.Trained:
  """A model with the mean of the variables of several; everything else is the first one's.

  Sums are float64 on the host, so the order of the sources changes at most the last bit, and one model is in memory at
  a time beside the sum. Batch statistics are averaged too, while the paper computes them again from training images
  (Sec. 3.2): only models with batch normalization, such as UperNet's head, have any.

  Args:
    sources: two or more runs' checkpoints, workdirs, weight files or names of published weights.
    ema, preprocessing: see `trained.open_source`.

  Raises:
    UserError: fewer than two, or one twice; one cannot be loaded; or it has another model, other classes or another
      preprocessing than the first one.
  """
  names = [os.path.expanduser(source) for source in sources]
  if len(names) < 2:
    raise UserError(f"an average needs two checkpoints or more, such as {names[0] if names else 'RUN'},OTHER")
  if twice := [name for i, name in enumerate(names) if name in names[:i]]:
    raise UserError(f"{twice[0]} is given twice: it would count twice in the average")
  first, total = None, {}  # first: with shapes for arrays
  for name in names:
    loaded = trained_lib.load(name, ema=ema, preprocessing=preprocessing)
    variables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), loaded.variables)
    first = first or dataclasses.replace(loaded, variables=variables)
    if differences := _differences(first, loaded):
      raise UserError(f"{name} cannot be averaged with {names[0]}: {'; '.join(differences[:_SHOWN])}")
    for path, leaf in flatten_dict(jax.device_get(loaded.variables)).items():
      total[path] = total.get(path, 0) + np.asarray(leaf, np.float64)
  mean = unflatten_dict({path: (leaf / len(names)).astype(np.float32) for path, leaf in total.items()})
  return dataclasses.replace(first, variables=mean)


def _differences(first: trained_lib.Trained, other: trained_lib.Trained) -> list[str]:
  """What keeps two models from being averaged, in words: "hidden_dim is 64, not 128"."""
  if type(first.model) is not type(other.model):
    return [f"its model is {type(other.model).__name__}, not {type(first.model).__name__}"]
  pairs = [(first.model, other.model)]
  if hasattr(first.model, "backbone"):
    pairs.append((first.model.backbone, other.model.backbone))
    if type(first.model.backbone) is not type(other.model.backbone):
      return [f"its backbone is {type(other.model.backbone).__name__}, not {type(first.model.backbone).__name__}"]
  found = [line for a, b in pairs for line in _unequal(_options(a), _options(b))]
  if first.class_names != other.class_names:
    counts = len(first.class_names), len(other.class_names)
    different = [
      f"{b!r} instead of {a!r}" for a, b in zip(first.class_names, other.class_names, strict=False) if a != b
    ]
    found.append(f"it has {counts[1]} classes, not {counts[0]}" if len(set(counts)) > 1 else f"class {different[0]}")
  views = [dataclasses.asdict(trained.preprocessing) for trained in (first, other)]
  found += [f"preprocessing: {line}" for line in _unequal(*views)]
  if not found:
    shapes = [{path: leaf.shape for path, leaf in flatten_dict(x.variables, sep="/").items()} for x in (first, other)]
    found = [f"shape of {line}" for line in _unequal(*shapes)]
  return found


def _options(module: Any) -> dict[str, Any]:
  """The attributes that decide what a model computes; the number of classes is compared with their names."""
  fields = (field.name for field in dataclasses.fields(module))
  return {name: getattr(module, name) for name in fields if name not in (*RUN_OPTIONS, "backbone")}


def _unequal(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
  """Lines such as "hidden_dim is 64, not 128"."""
  keys = [key for key in {**first, **other} if first.get(key) != other.get(key)]
  return [f"{key} is {other.get(key)}, not {first.get(key)}" for key in keys]
