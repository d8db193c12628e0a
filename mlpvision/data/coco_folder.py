"""A user's data in COCO's format as a dataset for detection, "coco:IMAGES_DIR,ANNOTATIONS.json".

Both parts may contain {split}, as in "coco:/data/{split}2017,/data/annotations/instances_{split}2017.json"; otherwise
the one split is train. Splits can be sliced. A split has a fixed order, on any machine: that of a hash of the images'
file names. The order of the classes is that of the categories' ids, which need not be consecutive.
"""

import concurrent.futures
import dataclasses
import functools
import glob
import hashlib
import os
import re
from typing import Any

from etils import epath
import numpy as np

from mlpvision.data import coco_json, directories, image_files, objects, transforms
from mlpvision.data.image_files import ImageError
from mlpvision.errors import UserError, printable

PREFIX = "coco:"
_SPLIT = "{split}"
_THREADS = 16  # which read headers


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """Examples by index: `objects.annotations` plus "image": encoded bytes, "file_name" and "index".

  Attributes:
    directory: of the images.
    names: of the images' files in it.
    class_names: by label.
    category_ids: the file's own id of each class.
    table: the objects.
  """

  directory: str
  names: directories.Names
  class_names: tuple[str, ...]
  category_ids: tuple[int, ...]
  table: objects.Table

  def __len__(self) -> int:
    return len(self.table)

  def __getitem__(self, index: int) -> dict[str, Any]:
    data = image_files.read(os.path.join(self.directory, self.names[index]))
    return {**self.annotations(index), "image": data}

  def annotations(self, index: int) -> dict[str, Any]:
    """The example without its image."""
    return {**self.table.annotations(index), "file_name": self.names[index], "index": range(len(self))[index]}

  @property
  def sizes(self) -> np.ndarray:
    """int32 [examples, 2], (height, width) of the upright images."""
    return self.table.sizes

  @property
  def usable_counts(self) -> np.ndarray:
    """int [examples]: how many objects of each image training uses."""
    return self.table.usable_counts

  @property
  def has_masks(self) -> bool:
    """Whether objects have masks."""
    return self.table.counts is not None

  def digest(self) -> str:
    """A hash of the classes, and of the names, order and objects of the images; the files may be anywhere."""
    return hashlib.md5(repr(self.class_names).encode() + self.names.tobytes() + self.table.tobytes()).hexdigest()


def check(name: str) -> None:
  """Raises UserError, within milliseconds, if the name has another form, or there are no such files."""
  images, annotations = _parts(name)
  _splits(name)
  if _SPLIT in annotations:
    return
  if not epath.Path(annotations).exists():
    raise UserError(f"{name}: there is no file {annotations}")
  if _SPLIT not in images and not epath.Path(images).is_dir():
    raise UserError(f"{name}: there is no directory {images}")


def open_images(name: str, split: str) -> tuple[Images, str]:
  """(images, actual name of the split) of "coco:IMAGES_DIR,ANNOTATIONS.json" and a split in tfds's notation.

  The headers of all images of the split are read. Raises UserError if images are missing or of another size than the
  annotations say, and as `check` and `coco_json` do.
  """
  wanted, selector = directories.parse_split(name, split)
  splits = _splits(name)
  base = directories.match_split(wanted, tuple(splits))
  if base is None:
    hint = ' Set, for example, --config.data.train_split="train[:90%]" --config.data.eval_split="train[90%:]"'
    raise UserError(f"{name} has no split {wanted!r}, only {', '.join(splits)}.{hint if len(splits) == 1 else ''}")
  directory, path = splits[base]

  def choose(images):
    images = sorted(images, key=lambda image: hashlib.md5(os.fsencode(image["file_name"])).digest())
    start, stop = directories.bounds(selector, len(images), f"{name}, split {split!r}")
    return images[start:stop]

  if not epath.Path(directory).is_dir():
    raise UserError(f"{name}: there is no directory {directory}")
  found = coco_json.parse(coco_json.read(path), path, choose)
  _check_files(directory, found, path)
  names = directories.Names.of(map(os.fsencode, found.file_names))
  return Images(directory, names, found.class_names, found.category_ids, found.table), base + selector


def _parts(name):
  """(directory of the images, annotation file), which may contain {split}."""
  images, comma, annotations = name.removeprefix(PREFIX).rpartition(",")
  if not comma or not images.strip() or not annotations.strip():
    raise UserError(
      f"data.name={name!r}: write {PREFIX}IMAGES_DIR,ANNOTATIONS.json; both may contain {_SPLIT}, such as"
      f" {PREFIX}/data/{_SPLIT}2017,/data/annotations/instances_{_SPLIT}2017.json"
    )
  return os.path.expanduser(images.strip()), os.path.expanduser(annotations.strip())


def _splits(name):
  """{split: (directory of the images, annotation file)}."""
  images, annotations = _parts(name)
  if _SPLIT not in annotations:
    if _SPLIT in images:
      raise UserError(f"data.name={name!r}: if the directory contains {_SPLIT}, the annotation file must, too")
    return {"train": (images, annotations)}
  first, *rest = annotations.split(_SPLIT)
  pattern = re.compile(re.escape(first) + "([^/]+)" + r"\1".join(map(re.escape, rest)))
  root = epath.Path(first if first.endswith("/") else os.path.dirname(first))
  inside = "*".join(map(glob.escape, annotations.split(_SPLIT)))[len(glob.escape(os.fspath(root))) :].lstrip("/")
  paths = sorted(map(os.fspath, root.glob(inside))) if root.is_dir() else []
  found = {match[1]: (images.replace(_SPLIT, match[1]), path) for path in paths if (match := pattern.fullmatch(path))}
  if not found:
    raise UserError(f"{name}: there is no file {annotations}, with the name of a split in place of {_SPLIT}")
  return found


def _check_files(directory, found, path):
  """One UserError that lists the files that are missing, or have another size than the annotations say."""
  check_one = functools.partial(_problem, directory)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    problems = list(filter(None, pool.map(check_one, found.file_names, found.table.sizes.tolist(), chunksize=64)))
  if problems:
    more = [f"and {len(problems) - 5:,} more"] if problems[5:] else []
    shown = map(printable, problems[:5])
    raise UserError(
      "\n  ".join([f"{path}: {len(problems):,} of {len(found.file_names):,} images in {directory}:", *shown, *more])
    )


def _problem(directory, name, size):
  """What is wrong with a file, other than damage, which training and evaluation report."""
  path = os.path.join(directory, name)
  if not epath.Path(path).exists():
    return f"{name}: there is no such file"
  try:
    actual = transforms.file_size(path)
  except ImageError:
    return ""
  if list(actual) != size:
    stated = f"{size[1]} x {size[0]}"
    return f"{name}: has {actual[1]} x {actual[0]} pixels, upright, but {stated} in the annotations"
  return ""
