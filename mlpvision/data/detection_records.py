"""Datasets of tfds with boxes: our own with masks, and any other with boxes alone."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import re
from typing import Any

from etils import epath
import numpy as np
from PIL import Image

from mlpvision.data import notes, objects, rle, transforms
from mlpvision.data.image_files import ImageError
from mlpvision.data.records import Records
from mlpvision.errors import UserError

_THREADS = 16  # which read headers
_MANY = 5000  # images whose records take a while to read
# What tfds calls the classes of boxes.
_LABELS = ("label", "type")
# Features of our own builders: `builders/digit_scenes.py` and `builders/coco2017_instances.py`.
SCENES = ("instances", "boxes", "labels")
INSTANCES = ("image_id", "xywh", "labels", "areas", "crowd", "ids", "masks")


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """Examples by index: `objects.annotations` plus "image": encoded bytes, "index", and "file_name" if there is one.

  Attributes:
    source: the records.
    form: SCENES, INSTANCES, or (the feature of the objects, that of the class in it).
    category_ids: the dataset's own id of each class.
    cache: a file in which the sizes are kept, because all records must be read for them.
  """

  source: Records
  form: tuple[str, ...]
  category_ids: tuple[int, ...]
  cache: epath.Path

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._example(index, self.source[index])

  def annotations(self, index: int) -> dict[str, Any]:
    """The example without its image, which must be read all the same."""
    example = self[index]
    del example["image"]
    return example

  @property
  def has_masks(self) -> bool:
    """Whether objects have masks."""
    return self.form in (SCENES, INSTANCES)

  @property
  def sizes(self) -> np.ndarray:
    """int32 [examples, 2]: (height, width) of the upright images, 0 of a damaged one; the first use reads them all."""
    return self._scan[0]

  @property
  def usable_counts(self) -> np.ndarray:
    """int [examples]: how many objects of each image training uses; the first use reads all records."""
    return self._scan[1]

  @functools.cached_property
  def _scan(self):
    found = _load(self.cache, len(self))
    if found is None:
      if len(self) > _MANY:
        notes.say(f"reading the sizes of {len(self):,} images, once ...")
      with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = np.array(list(pool.map(self._scanned, range(len(self)), chunksize=64)), np.int32).reshape(-1, 3)
      _save(self.cache, found)
    return found[:, :2], found[:, 2].astype(int)

  def _scanned(self, index):
    """(height, width, number of usable objects); a damaged image stays in training, where it is replaced and said."""
    record = self.source[index]
    try:
      size = transforms.upright_size(record["image"])
      return *size, int(objects.usable(self._annotations(index, record, size, masks=False)).sum())
    except ImageError:
      return 0, 0, 1

  def _example(self, index, record):
    size = transforms.upright_size(record["image"])
    found = {**self._annotations(index, record, size), "image": record["image"], "index": range(len(self))[index]}
    name = record.get("file_name", record.get("image/filename"))
    return found if name is None else {**found, "file_name": name}

  def _annotations(self, index, record, size, masks=True):
    """masks: whether to make those that are not stored."""
    if self.form == SCENES:
      return _scene(index, record, size, masks)
    if self.form == INSTANCES:
      found = [{"size": list(size), "counts": counts} for counts in record["masks"]]
      columns = {name: record[name] for name in ("ids", "areas", "crowd", "image_id")}
      return objects.annotations(size, record["xywh"], record["labels"], masks=found, **columns)
    feature, label = self.form
    found, (height, width) = record[feature], size
    top, left, bottom, right = np.asarray(found["bbox"], np.float64).reshape(-1, 4).T
    if not all(np.isfinite(side).all() for side in (top, left, bottom, right)):
      raise UserError(f"image {index}: a box has NaN or infinite numbers")
    xywh = np.stack([left * width, top * height, (right - left) * width, (bottom - top) * height], 1)
    return objects.annotations(
      size,
      xywh,
      found[label],
      image_id=record.get("image/id", index),
      ids=found.get("id"),
      areas=found.get("area"),
      crowd=found.get("is_crowd"),
    )


def cache(directory: str | os.PathLike, split: str) -> epath.Path:
  """The file of `Images.cache` for a split, in tfds's notation, of the dataset in a directory."""
  name = re.sub(r"\W+", "_", split).strip("_")
  return epath.Path(directory) / f"sizes_{name}_{hashlib.md5(split.encode()).hexdigest()[:8]}.npy"


def _load(path, count):
  """int32 [count, 3] from a file; None if there is none, or it has something else."""
  try:
    with path.open("rb") as file:
      found = np.load(file, allow_pickle=False)
  except (OSError, ValueError, EOFError):
    return None
  return found if found.shape == (count, 3) and found.dtype == np.int32 else None


def _save(path, found):
  """Keeps it if the directory can be written to; whole, if several processes do."""
  part = path.with_name(f"{path.name}.{os.getpid()}")
  with contextlib.suppress(OSError):
    with part.open("wb") as file:
      np.save(file, found)
    part.replace(path)


def _scene(index, record, size, masks):
  boxes = np.asarray(record["boxes"], np.float64).reshape(-1, 4)
  xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
  if not masks:
    return objects.annotations(size, xywh, record["labels"], image_id=index)
  try:
    drawn = np.array(Image.open(io.BytesIO(record["instances"])))
  except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
    raise ImageError(f"its map of objects is damaged ({error})") from error
  found = [rle.encode(drawn == number) for number in range(1, len(xywh) + 1)]
  areas = np.array([rle.area(mask) for mask in found])
  return objects.annotations(size, xywh, record["labels"], image_id=index, areas=areas, masks=found)


def find_form(name: str, info: Any) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
  """(form, class names, category ids) of a dataset; see `Images`. Raises UserError if it has no boxes with classes.

  name: of the dataset, for messages; info: of tfds.
  """
  import tensorflow_datasets as tfds

  features = info.features
  if "image" in features:
    for form in (SCENES, INSTANCES):
      if set(form) <= set(features):
        names = tuple(features["labels"].feature.names)
        ids = (info.metadata or {}).get("category_ids") or range(1, len(names) + 1)
        return form, names, tuple(map(int, ids))
    for feature, content in features.items():
      inside = getattr(content, "feature", None)
      inside = dict(inside.items()) if isinstance(inside, tfds.features.FeaturesDict) else {}
      label = next((key for key in _LABELS if isinstance(inside.get(key), tfds.features.ClassLabel)), None)
      if label and isinstance(inside.get("bbox"), tfds.features.BBoxFeature):
        names = tuple(inside[label].names)
        return (feature, label), names, tuple(range(1, len(names) + 1))
  raise UserError(
    f"{name} has no boxes: for detection it must have the features image, and a sequence with bbox and label; it has"
    f" {', '.join(features)}"
  )
