"""COCO 2017 with instance masks, 80 classes (Lin et al., arXiv 1405.0312), from its archives, which are not unpacked.

Images are stored as the archives have them; boxes, areas and crowds as the annotations have them. Masks are stored as
compressed RLEs, made from polygons and uncompressed RLEs by pycocotools, as mmdetection does. The labels are the ranks
of the categories' ids, which are in the metadata. Images without objects are stored, too.

An image is skipped if it cannot be decoded, or has another size than the annotations say. report_SPLIT.txt, next to
the dataset's files, lists those.
"""

from collections.abc import Iterator
import dataclasses
import json
from typing import Any

from etils import epath
import numpy as np
import tensorflow_datasets as tfds

from mlpvision import zips
from mlpvision.data import coco_json, image_files, transforms
from mlpvision.errors import UserError
from mlpvision.prepare import archives
from mlpvision.prepare.members import open_archive, read_member
from mlpvision.prepare.pieces import Example, Note
from mlpvision.prepare.piecewise import PiecewiseBuilder

_RELEASE = archives.RELEASES["coco2017_instances"]
_SPLITS = {"train": "train2017", "validation": "val2017"}
_ANNOTATIONS = "annotations_trainval2017.zip"
_IMAGES_OF_PIECE = 1024
_MAX_JSON, _MAX_FILE = 2**30, 2**25  # bytes of an annotation file, and of an image


class Coco2017Instances(PiecewiseBuilder):
  """COCO 2017 for detection and instance segmentation; see the module's description."""

  VERSION = tfds.core.Version("1.0.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = ", ".join(archive.name for archive in _RELEASE.archives)
  PUBLISHED = {"train": 118_287, "validation": 5_000}

  def _info(self):
    numbers = tfds.features.Tensor
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="jpeg"),
          "image_id": numbers(shape=(), dtype=np.int64),
          "file_name": tfds.features.Text(),
          # Of each object: left, top, width and height in pixels.
          "xywh": numbers(shape=(None, 4), dtype=np.float64),
          "labels": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=_RELEASE.classes)),
          "areas": numbers(shape=(None,), dtype=np.float64),
          "crowd": tfds.features.Sequence(np.bool_),
          "ids": numbers(shape=(None,), dtype=np.int64),
          "masks": tfds.features.Sequence(tfds.features.Text()),  # the counts of RLEs of the image's size
        }
      ),
      homepage="https://cocodataset.org",
      metadata=tfds.core.MetadataDict(),  # category_ids are those of the classes
    )

  def _source(self, manual_dir):
    return _Archives(epath.Path(manual_dir))

  def _use(self, metadata):
    self.info.features["labels"].feature.names = metadata["names"]
    self.info.metadata["category_ids"] = metadata["category_ids"]


class _Archives:
  """The source of pieces; see `mlpvision.prepare.pieces.Source`."""

  def __init__(self, manual_dir: epath.Path) -> None:
    self._directory = manual_dir
    sizes = {archive.name: (manual_dir / archive.name).stat().length for archive in _RELEASE.archives}
    self.identity = json.dumps([sizes, _IMAGES_OF_PIECE])
    path = manual_dir / _ANNOTATIONS
    members = open_archive(path)
    self._found = {split: _annotations(path, members, folder) for split, folder in _SPLITS.items()}
    names, ids = self._found["train"].class_names, self._found["train"].category_ids
    if any((other.class_names, other.category_ids) != (names, ids) for other in self._found.values()):
      raise UserError(f"{path}: its splits have different categories. Use the archive as published")
    if len(names) != _RELEASE.classes:
      raise UserError(f"{path} has {len(names)} categories; expected {_RELEASE.classes}. Use the archive as published")
    self.metadata = {"names": list(names), "category_ids": list(ids)}

  def __iter__(self) -> Iterator["_Piece"]:
    for split, folder in _SPLITS.items():
      members, found = open_archive(self._directory / f"{folder}.zip"), self._found[split]
      for start in range(0, len(found.table), _IMAGES_OF_PIECE):
        images = [_without_image(found, i) for i in range(start, min(start + _IMAGES_OF_PIECE, len(found.table)))]
        names = [f"{folder}/{features['file_name']}" for _, features in images]
        yield _Piece(split, images, {name: members[name] for name in names if name in members})


def _without_image(found, index):
  """([height, width], features) of an image."""
  annotations = found.table.annotations(index)
  columns = {key: annotations[key] for key in ("image_id", "xywh", "areas", "ids")}
  masks = [mask["counts"].decode() for mask in annotations["masks"]]
  lists = {"labels": annotations["labels"].tolist(), "crowd": annotations["crowd"].tolist(), "masks": masks}
  return found.table.sizes[index].tolist(), {"file_name": found.file_names[index], **columns, **lists}


@dataclasses.dataclass(frozen=True)
class _Piece:
  """Images of a split, with their objects, and where they are in the archive."""

  split: str
  images: list[tuple[list[int], dict[str, Any]]]
  members: dict[str, zips.Member]

  def __call__(self) -> Iterator[Example | Note]:
    for size, features in self.images:
      name = features["file_name"]
      image, problem = _checked(self.members, f"{_SPLITS[self.split]}/{name}", size)
      if problem:
        yield Note("skipped", self.split, name, problem)
      else:
        yield Example(self.split, features["image_id"], {"image": image, **features})


def _annotations(path, members, folder):
  name = f"annotations/instances_{folder}.json"
  try:
    data = read_member(members, name, _MAX_JSON)
  except image_files.ImageError as error:
    raise UserError(f"{path}: {error}. Use the archive as published") from error
  found = coco_json.parse(coco_json.loads(data, f"{path}: {name}"), f"{path}: {name}")
  if found.table.counts is None:
    raise UserError(f"{path}: {name} has objects without masks. Use the archive as published")
  return found


def _checked(members, name, size):
  """(bytes of an image, "") or (None, what is wrong with it)."""
  try:
    data = read_member(members, name, _MAX_FILE)
    (height, width) = transforms.decode(data).shape[:2]
    if [height, width] != size:
      return None, f"has {width} x {height} pixels, but {size[1]} x {size[0]} in the annotations"
    return data, ""
  except UserError as error:
    return None, " ".join(str(error).split())
