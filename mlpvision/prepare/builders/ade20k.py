"""ADE20K for scene parsing, 150 classes, from ADEChallengeData2016.zip (Zhou et al., CVPR 2017), which is not unpacked.

Images and label maps are stored as the archive has them. In a map, 0 marks pixels of no class and class i is stored as
i + 1: set data.reduce_zero_label. The classes and their order are those of the archive's objectInfo150.txt; each has
the first of its names.

A pair is skipped if the image or the map cannot be decoded, the map is of another kind or size, or has an unknown
index. report_SPLIT.txt, next to the dataset's files, lists those.
"""

from collections.abc import Iterator
import dataclasses
import json
import os
import re

from etils import epath
import tensorflow_datasets as tfds

from mlpvision import zips
from mlpvision.data import image_files, label_maps, transforms
from mlpvision.errors import UserError
from mlpvision.prepare import archives
from mlpvision.prepare.members import open_archive, read_member
from mlpvision.prepare.pieces import Example, Note
from mlpvision.prepare.piecewise import PiecewiseBuilder

_ROOT = "ADEChallengeData2016"
_FOLDERS = {"train": "training", "validation": "validation"}
_RELEASE = archives.RELEASES["ade20k"]
_NO_CLASS = "other"  # the name of 0 in a map
_PAIRS = 512  # in a piece
_LINE = re.compile(r"\s*(\d+)\s+[\d.]+\s+\d+\s+\d+\s+(\S.*)")  # number, ratio, images of both splits, names
_MAX_TEXT, _MAX_FILE = 2**20, 2**25  # bytes of the list of classes, and of an image or a map


class Ade20k(PiecewiseBuilder):
  """ADE20K's scene parsing benchmark; see the module's description."""

  VERSION = tfds.core.Version("1.0.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = _RELEASE.archives[0].name
  PUBLISHED = _RELEASE.splits

  def _info(self):
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="jpeg"),
          "segmentation": tfds.features.Image(shape=(None, None, 1), encoding_format="png", use_colormap=True),
          "file_name": tfds.features.Text(),
        }
      ),
      supervised_keys=("image", "segmentation"),
      homepage="http://sceneparsing.csail.mit.edu/",
      metadata=tfds.core.MetadataDict(),  # its label_names name the values of a map
    )

  def _source(self, manual_dir):
    return _Archive(epath.Path(manual_dir) / _RELEASE.archives[0].name)

  def _use(self, metadata):
    self.info.metadata["label_names"] = [_NO_CLASS, *metadata["names"]]


class _Archive:
  """The source of pieces; see `mlpvision.prepare.pieces.Source`."""

  def __init__(self, path: epath.Path) -> None:
    self._members = open_archive(path)
    self.metadata = {"names": class_names(path, self._members)}
    self.identity = json.dumps([path.name, path.stat().length, _PAIRS])

  def __iter__(self) -> Iterator["_Piece"]:
    for split, folder in _FOLDERS.items():
      images = re.compile(rf"{_ROOT}/images/{folder}/([^/]+)\.jpg")
      stems = sorted(match[1] for name in self._members if (match := images.fullmatch(name)))
      for start in range(0, len(stems), _PAIRS):
        some = stems[start : start + _PAIRS]
        files = [name for stem in some for name in _files(split, stem)]
        yield _Piece(split, some, {name: self._members[name] for name in files if name in self._members})


@dataclasses.dataclass(frozen=True)
class _Piece:
  """Pairs of a split, and where they are in the archive."""

  split: str
  stems: list[str]
  members: dict[str, zips.Member]

  def __call__(self) -> Iterator[Example | Note]:
    for stem in self.stems:
      pair, problem = _checked(self.members, *_files(self.split, stem))
      if problem:
        yield Note("skipped", self.split, f"{stem}.jpg", problem)
      else:
        yield Example(self.split, stem, {**pair, "file_name": f"{stem}.jpg"})


def _files(split, stem):
  """The names of an image and its map in the archive."""
  folder = _FOLDERS[split]
  return f"{_ROOT}/images/{folder}/{stem}.jpg", f"{_ROOT}/annotations/{folder}/{stem}.png"


def class_names(path: str | os.PathLike, members: dict[str, zips.Member]) -> list[str]:
  """The names of the classes, in order. Raises UserError if the archive does not list them."""
  name = f"{_ROOT}/objectInfo150.txt"
  try:
    text = read_member(members, name, _MAX_TEXT).decode()
  except (image_files.ImageError, UnicodeDecodeError) as error:
    raise UserError(f"{path}: {name} cannot be read: {error}. Use the archive as published") from error
  lines = [match for line in text.splitlines() if (match := _LINE.fullmatch(line))]
  names = [match[2].partition(",")[0].strip() for match in lines]
  if [int(match[1]) for match in lines] != list(range(1, len(lines) + 1)) or len(names) != _RELEASE.classes:
    raise UserError(
      f"{path}: {name} has {len(names)} lines of classes, or not in order; expected {_RELEASE.classes}, such as"
      ' "1  0.1576  11664  1172  wall". Use the archive as published'
    )
  return names


def _checked(members, image_name, map_name):
  """({"image", "segmentation"}, "") of a pair, or (None, what is wrong with it)."""
  try:
    image = read_member(members, image_name, _MAX_FILE)
    data = read_member(members, map_name, _MAX_FILE)
    labels = label_maps.decode(data)
    label_maps.check_size(labels.shape, transforms.decode(image).shape[:2])
    label_maps.indices(labels, _RELEASE.classes, reduce_zero=True)
    return {"image": image, "segmentation": data}, ""
  except UserError as error:
    return None, " ".join(str(error).split())
