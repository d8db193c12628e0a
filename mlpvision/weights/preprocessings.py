"""The preprocessing of published weights by name, for files that do not say what they expect of an image."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict

from mlpvision import models
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights import known, names, resize, shapes as shapes_lib
from mlpvision.weights.errors import WeightsError

_SHOWN = 6


def choose(
  choice: Preprocessing | str, module: nn.Module, params: Mapping[str, Any], default: Preprocessing | None = None
) -> Preprocessing:
  """A preprocessing that is given, or that of the published weights of this name, for images that parameters accept.

  module, params: a model, or a dict of parameters that a model with a backbone contains.
  default: of a model for dense tasks, from which everything but mean and std is taken.

  Raises WeightsError: there are no published weights of this name.
  """
  if isinstance(choice, Preprocessing):
    return choice
  if choice not in known.KNOWN:
    advice = names.hint(choice) or f"Known names: {', '.join(known.KNOWN)}"
    raise WeightsError(f"preprocessing={choice}", "is not the name of published weights", advice)
  view = known.KNOWN[choice].preprocessing
  if default is not None and default.scale is not None:
    return dataclasses.replace(default, mean=view.mean, std=view.std)
  return _for(view, module, params)


def fitting(model_name: str, module: nn.Module, params: Mapping[str, Any]) -> dict[str, Preprocessing]:
  """{name: preprocessing} of published weights, each different and in a size that a classifier's parameters accept.

  Those of the same model come first, then those of its family, then others, up to six.
  """
  family = models.family_of(module)

  def distance(entry):
    return (entry.model != model_name) + (entry.model not in family.variants)

  found = {}
  for entry in sorted(known.KNOWN.values(), key=distance):
    view = _for(entry.preprocessing, module, params)
    if view not in found.values():
      found[entry.name] = view
  return dict(list(found.items())[:_SHOWN])


def advice(model_name: str, module: nn.Module, params: Mapping[str, Any]) -> str:
  """What to do about a file that does not say its preprocessing: the names that fit, a line each."""
  found = fitting(model_name, module, params)
  width = max(map(len, found))
  lines = "\n".join(f"  --preprocessing={name:<{width}}  {view}" for name, view in found.items())
  return f"Name published weights whose preprocessing they share (in Python, load(preprocessing=NAME)):\n{lines}"


def _for(view, module, params):
  """A preprocessing in an image size that the parameters accept."""
  shapes = {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
  try:
    shapes_lib.check_image_size(module, shapes, view.image_size)
  except ValueError:
    return dataclasses.replace(view, image_size=_size(module, shapes, view.image_size))
  return view


def _size(module, shapes, wanted):
  """The image size that fixes the number of patches; of a model for any number, the multiple nearest to `wanted`."""
  if models.family_of(module).patches is None:
    return max(1, round(wanted / module.size_divisor)) * module.size_divisor
  height, width = resize.image_size_of(module, shapes)
  side = math.isqrt(height * width)
  return side if side * side == height * width else (height, width)
