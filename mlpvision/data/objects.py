"""The objects of images: what a detection dataset says about them, and which of them a detector is trained on."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

import numpy as np

from mlpvision.data import directories, notes
from mlpvision.errors import UserError


def annotations(
  size: Sequence[int],
  xywh: np.ndarray,
  labels: np.ndarray,
  *,
  image_id: int,
  ids: np.ndarray | None = None,
  areas: np.ndarray | None = None,
  crowd: np.ndarray | None = None,
  masks: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
  """An example of detection without its image.

  Args:
    size: (height, width) of the upright image.
    xywh: float [n, 4], each object's left, top, width and height in pixels.
    labels: int [n].
    image_id: of the dataset.
    ids: int [n], of the annotations; None counts them.
    areas: float [n] in pixels; None: those of the boxes.
    crowd: bool [n], whether it is a crowd of objects; None: none is.
    masks: RLEs, see `rle`; None for a dataset without masks.

  Returns:
    {"image_id", "size": (height, width), "boxes": float32 [n, 4] of x1, y1, x2, y2, "xywh": float64 [n, 4], "labels":
    int64 [n], "crowd": bool [n], "areas": float64 [n], "ids": int64 [n], "masks": list or None}.
  """
  xywh = np.asarray(xywh, np.float64).reshape(-1, 4)
  return {
    "image_id": int(image_id),
    "size": (int(size[0]), int(size[1])),
    "boxes": np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32),
    "xywh": xywh,
    "labels": np.asarray(labels, np.int64).reshape(-1),
    "crowd": np.zeros(len(xywh), bool) if crowd is None else np.asarray(crowd, bool).reshape(-1),
    "areas": xywh[:, 2] * xywh[:, 3] if areas is None else np.asarray(areas, np.float64).reshape(-1),
    "ids": np.arange(len(xywh)) if ids is None else np.asarray(ids, np.int64).reshape(-1),
    "masks": None if masks is None else list(masks),
  }


def usable(found: Mapping[str, Any]) -> np.ndarray:
  """bool [n]: the objects of an example that training uses, as mmdetection's CocoDataset.

  Crowds are left out, and objects without area, narrower or lower than a pixel, or outside the image.
  """
  return _usable(found["xywh"], found["areas"], found["crowd"], *found["size"])


def _usable(xywh, areas, crowd, image_height, image_width):
  x, y, width, height = xywh.T
  is_inside = (np.minimum(x + width, image_width) > np.maximum(x, 0)) & (
    np.minimum(y + height, image_height) > np.maximum(y, 0)
  )
  return is_inside & (width >= 1) & (height >= 1) & (areas > 0) & ~crowd


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """The objects of many images in a few arrays, which take little memory and are sent to a worker quickly.

  Attributes:
    image_ids: int64 [images].
    sizes: int32 [images, 2], (height, width).
    ends: int64 [images], the end of each image's objects in the arrays below.
    xywh, labels, crowd, areas, ids: see `annotations`.
    counts: the masks' compressed runs, or None.
  """

  image_ids: np.ndarray
  sizes: np.ndarray
  ends: np.ndarray
  xywh: np.ndarray
  labels: np.ndarray
  crowd: np.ndarray
  areas: np.ndarray
  ids: np.ndarray
  counts: directories.Names | None

  def __len__(self) -> int:
    return len(self.image_ids)

  def annotations(self, index: int) -> dict[str, Any]:
    """See the function of this name."""
    index = range(len(self))[index]
    part = slice(self.ends[index - 1] if index else 0, self.ends[index])
    size = self.sizes[index].tolist()
    masks = None
    if self.counts is not None:
      masks = [{"size": size, "counts": self.counts.raw(i)} for i in range(part.start, part.stop)]
    columns = {name: getattr(self, name)[part] for name in ("ids", "areas", "crowd")}
    return annotations(size, self.xywh[part], self.labels[part], image_id=self.image_ids[index], masks=masks, **columns)

  @functools.cached_property
  def usable(self) -> np.ndarray:
    """bool [objects]: see the function of this name."""
    height, width = self.sizes.repeat(np.diff(self.ends, prepend=0), 0).T
    return _usable(self.xywh, self.areas, self.crowd, height, width)

  @functools.cached_property
  def usable_counts(self) -> np.ndarray:
    """int [images]: how many objects of each image training uses."""
    return np.diff(np.append(0, np.cumsum(self.usable))[self.ends], prepend=0)

  def tobytes(self) -> bytes:
    """Equal for equal images and objects in equal order."""
    arrays = (self.image_ids, self.sizes, self.ends, self.xywh, self.labels, self.crowd, self.areas)
    return b"".join(array.tobytes() for array in arrays) + (b"" if self.counts is None else self.counts.tobytes())


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """Some examples of a source of detection, in their order there; "index" of an example is that in the part."""

  source: Any
  indices: np.ndarray

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {**self.source[int(self.indices[index])], "index": range(len(self))[index]}

  def annotations(self, index: int) -> dict[str, Any]:
    """The example without its image."""
    return {**self.source.annotations(int(self.indices[index])), "index": range(len(self))[index]}

  @property
  def sizes(self) -> np.ndarray:
    """int32 [examples, 2], (height, width) of the upright images."""
    return self.source.sizes[self.indices]

  @property
  def usable_counts(self) -> np.ndarray:
    """int [examples]: how many objects of each image training uses."""
    return self.source.usable_counts[self.indices]

  @property
  def category_ids(self) -> tuple[int, ...]:
    """The dataset's own id of each class."""
    return self.source.category_ids

  @property
  def has_masks(self) -> bool:
    """Whether objects have masks."""
    return self.source.has_masks


def trainable(split: Any, max_objects: int) -> Any:
  """The images of a `datasets.Split` of detection that have objects which training uses, see `usable`.

  Says how many have none, and how many more than max_objects, of which the first are used. Raises UserError if none has
  any.
  """
  counts = split.source.usable_counts
  chosen = np.flatnonzero(counts > 0)
  if not chosen.size:
    raise UserError(f"{split.name}: none of the {len(split):,} images has an object to train on")
  many = np.flatnonzero(counts > max_objects)
  if many.size:
    first = ", ".join(f"{_name(split.source, i)} with {counts[i]:,}" for i in many[:3].tolist())
    notes.warn(
      f"warning: {split.name}: {many.size:,} of {len(split):,} images have more than data.max_objects={max_objects}"
      f" objects ({first}{', ...' if many.size > 3 else ''}); training uses the first {max_objects} of each"
    )
  if len(chosen) == len(split):
    return split
  without = len(split) - len(chosen)
  notes.say(f"note: {split.name}: {without:,} of {len(split):,} images have no object to train on, and are left out")
  name, identity = f"{split.name}, images with objects", f"{split.identity}, images with objects"
  return dataclasses.replace(split, source=Part(split.source, chosen), name=name, identity=identity)


def _name(source, index):
  found = source.annotations(index).get("file_name", f"image {index}")
  return found.decode(errors="replace") if isinstance(found, bytes) else found
