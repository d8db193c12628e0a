"""The record of one kind of model on a backbone: how to find it in a weight file, and its sizes."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from flax import linen as nn

from mlpvision.models import naming
from mlpvision.preprocessing import Preprocessing

Shapes = Mapping[str, tuple[int, ...]]  # {path of a parameter: shape}


@dataclasses.dataclass(frozen=True)
class Classifier:
  """A layer whose outputs are of the classes.

  path: regex of its name in our parameters; outputs: their number, from the number of classes; init: of its kernel.
  """

  path: str
  outputs: Callable[[int], int]
  init: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Found:
  """What shapes determine: the key of `models.HEADS`, the number of classes, and {attribute: value} of the module."""

  model_name: str
  num_classes: int
  sizes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kind:
  """One kind of model.

  Attributes:
    noun: "segmenter".
    module: or its base class.
    mark: how the name of an array begins that only this kind has.
    parts: first parts of all names but the backbone's.
    table: names of all but the backbone.
    find: what the shapes of all but the backbone determine. Raises LookupError or ValueError if they do not.
    classifiers: the layers that another number of classes makes new.
    preprocessing: of files that do not note theirs.
  """

  noun: str
  module: type[nn.Module]
  mark: str
  parts: tuple[str, ...]
  table: naming.Table
  find: Callable[[Shapes], Found]
  classifiers: tuple[Classifier, ...]
  preprocessing: Preprocessing


def outputs(shapes: Shapes, path: str) -> int:
  """The number of outputs of a layer; KeyError if there is none, ValueError if its shape is of no layer."""
  shape = shapes[path]
  if len(shape) < 2 or 0 in shape:
    raise ValueError(f"{path} has shape {shape}")
  return shape[-1]
