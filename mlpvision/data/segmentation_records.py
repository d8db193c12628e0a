"""Datasets of tfds with a label map per image."""

from collections.abc import Mapping
import concurrent.futures
import dataclasses
import functools
from typing import Any

import numpy as np

from mlpvision.data import class_list, transforms
from mlpvision.data.image_files import ImageError
from mlpvision.data.records import Records
from mlpvision.errors import UserError

_NAMES = ("segmentation", "segmentation_mask", "segmentation_label", "annotation")
_THREADS = 16  # which read headers


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
  """A source whose label map, as a PNG, is "segmentation", whatever the dataset calls it."""

  source: Records
  feature: str

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = self.source[index]
    return {**example, "segmentation": example[self.feature]}

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """int32 [examples, 2]: (height, width) of the upright images, 0 of a damaged one; the first use reads them all."""
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      return np.array(list(pool.map(self._size, range(len(self)))), np.int32).reshape(-1, 2)

  def _size(self, index):
    try:
      return transforms.upright_size(self.source[index]["image"])
    except ImageError:
      return 0, 0


def find_feature(name: str, features: Mapping[str, Any]) -> str:
  """The feature that has the label maps. Raises UserError if there is none, or it has several channels or wide values.

  name: of the dataset, for messages.
  """
  found = next((feature for feature in _NAMES if feature in features), None)
  if found is None or "image" not in features:
    raise UserError(
      f"{name} has no label maps: for segmentation it must have the features image and one of {', '.join(_NAMES)}; it"
      f" has {', '.join(features)}"
    )
  shape, dtype = features[found].shape, features[found].np_dtype
  if not isinstance(shape, tuple) or len(shape) != 3 or shape[-1] != 1 or dtype != np.uint8:
    raise UserError(
      f"{name}: its feature {found} has the shape {shape} and dtype {dtype}; label maps must have one channel of uint8"
    )
  return found


def class_names(name: str, info: Any, feature: str, classes: str, *, reduce_zero_label: bool) -> tuple[str, ...]:
  """The names of the classes, from a text file or from the dataset. Raises UserError if neither has them.

  info: of tfds. A LabeledImage names the values of its maps, and so do the metadata "label_names" of our own builders.
  classes: the file, "" if there is none. reduce_zero_label: leaves out the name of 0, which is not a class then.
  """
  if classes:
    return class_list.read(classes)
  names = (info.metadata or {}).get("label_names")
  if getattr(info.features[feature], "num_classes", None):
    names = info.features[feature].names
  if not names:
    raise UserError(
      f"{name} does not name its classes: write the name of a class on each line of a text file, index 0 first, and set"
      " --config.data.classes=FILE"
    )
  return tuple(names[1:] if reduce_zero_label else names)
