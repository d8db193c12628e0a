"""A folder of images and label maps as a dataset for segmentation, "folder:/path", in one of three layouts:

  /path/images/NAME.jpg          /path/labels/NAME.png            one split, train, which can be sliced
  /path/SPLIT/images/NAME.jpg    /path/SPLIT/labels/NAME.png
  /path/images/SPLIT/NAME.jpg    /path/labels/SPLIT/NAME.png

An image and its map have the same name up to the suffix. /path/classes.txt names one class per line; the first line is
index 0. A split has a fixed order, on any machine: that of a hash of the names.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from typing import Any

import numpy as np

from mlpvision.data import class_list, directories, image_files, label_maps, transforms
from mlpvision.data.directories import listed, scan
from mlpvision.data.image_files import ImageError
from mlpvision.errors import UserError

_THREADS = 16  # which read headers


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """Examples by index: {"image": encoded bytes, "segmentation": bytes of a PNG, "file_name": of the image}.

  Attributes:
    root: the folder.
    images, labels: the split's directories in it.
    class_names: by index.
    names: of the images' files.
    sizes: int32 [pairs, 2], (height, width) of the upright images; 0 if an image or its map has a damaged header.
  """

  root: str
  images: str
  labels: str
  class_names: tuple[str, ...]
  names: directories.Names
  sizes: np.ndarray

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, index: int) -> dict[str, Any]:
    name = self.names[index]
    image, label = _files(self, name)
    data = {"image": image_files.read(image), "segmentation": image_files.read(label)}
    return {**data, "file_name": f"{self.images}/{name}"}

  def digest(self) -> str:
    """A hash of the classes and of the names and order of the images; the directory may be anywhere."""
    return hashlib.md5(repr(self.class_names).encode() + self.names.tobytes()).hexdigest()


def check(name: str, classes: str = "") -> None:
  """Raises UserError, within milliseconds, if there is no such directory, no layout of these, or no list of classes."""
  root = directories.root(name)
  _splits(root)
  _class_names(root, classes)


def open_pairs(name: str, split: str, classes: str = "") -> tuple[Pairs, str]:
  """(pairs, actual name of the split) of "folder:/path" and a split in tfds's notation.

  classes: a text file with a class name per line; "" is /path/classes.txt.

  The headers of all files of the split are read. Raises UserError if a map is missing, is of another kind or size than
  it must be, or has no image; and as `check` does.
  """
  root = directories.root(name)
  wanted, selector = directories.parse_split(name, split)
  splits, class_names = _splits(root), _class_names(root, classes)
  base = directories.match_split(wanted, tuple(splits))
  if base is None:
    hint = ' Set, for example, --config.data.train_split="train[:90%]" --config.data.eval_split="train[90%:]"'
    raise UserError(f"{root} has no split {wanted!r}, only {', '.join(splits)}.{hint if len(splits) == 1 else ''}")
  images, labels = splits[base]
  names = _paired(root, images, labels)
  start, stop = directories.bounds(selector, len(names), f"{name}, split {split!r}")
  names = directories.Names.of(map(os.fsencode, names[start:stop]))
  pairs = Pairs(os.fspath(root), images, labels, class_names, names, np.zeros((len(names), 2), np.int32))
  return dataclasses.replace(pairs, sizes=_checked_sizes(pairs)), base + selector


def _splits(root):
  """{split: (directory of images, directory of label maps)}."""
  inside = sorted(entry for entry, kind in scan(root) if kind == "directory")
  if {"images", "labels"} <= set(inside):
    entries = sorted(scan(root / "images"))
    below, files = ([entry for entry, kind in entries if kind == wanted] for wanted in ("directory", "image"))
    if below and files:
      raise UserError(f"{root / 'images'} has both images ({listed(files)}) and directories ({listed(below)})")
    found = {split: (f"images/{split}", f"labels/{split}") for split in below}
    return found or {"train": ("images", "labels")}
  found = {split: (f"{split}/images", f"{split}/labels") for split in inside if (root / split / "images").is_dir()}
  if not found:
    raise UserError(
      f"{root} is not a folder for segmentation. Expected {root}/images/NAME.jpg with {root}/labels/NAME.png, or the"
      f" same below a directory per split: {root}/train/images and {root}/train/labels, or {root}/images/train and"
      f" {root}/labels/train"
    )
  return found


def _class_names(root, classes):
  path = classes or root / "classes.txt"
  if not classes and not path.exists():
    raise UserError(
      f"there is no {path}: write the name of a class on each line, index 0 first, or name such a file with"
      " --config.data.classes=FILE"
    )
  return class_list.read(path)


def _paired(root, images, labels):
  """The names of the images' files, in their fixed order."""
  stems = []
  for directory, wanted in ((images, directories.SUFFIXES), (labels, {".png"})):
    if not (root / directory).is_dir():
      raise UserError(f"there is no directory {root / directory}")
    found = {}
    for entry, kind in sorted(scan(root / directory)):
      stem, suffix = os.path.splitext(entry)
      if kind == "directory":
        raise UserError(f"{root / directory} contains a directory, {entry}; expected only files there")
      if kind == "image" and suffix.lower() not in wanted:
        raise UserError(f"{root / directory / entry}: a label map must be a PNG")
      if kind == "image" and stem in found:
        raise UserError(f"{root / directory} has both {found[stem]} and {entry}; names must differ before the suffix")
      if kind == "image":
        found[stem] = entry
    stems.append(found)
  images_by_stem, labels_by_stem = stems
  alone = [
    f"{len(missing):,} {what}: {listed(missing)}"
    for what, of, others in (
      (f"images in {images} have no label map", images_by_stem, labels_by_stem),
      (f"label maps in {labels} have no image", labels_by_stem, images_by_stem),
    )
    if (missing := [entry for stem, entry in of.items() if stem not in others])
  ]
  if alone:
    raise UserError(f"{root}: {'; '.join(alone)}. Expected {images}/NAME.jpg and {labels}/NAME.png for every NAME")
  if not images_by_stem:
    raise UserError(f"{root / images} has no images ({'|'.join(sorted(directories.SUFFIXES))})")
  return [images_by_stem[s] for s in sorted(images_by_stem, key=lambda s: hashlib.md5(os.fsencode(s)).digest())]


def _files(pairs, name):
  """The paths of an image and of its map."""
  image = os.path.join(pairs.root, pairs.images, name)
  return image, os.path.join(pairs.root, pairs.labels, f"{os.path.splitext(name)[0]}.png")


def _checked_sizes(pairs):
  """The sizes of all pairs; one UserError that lists what is wrong with them, other than damage."""
  names = [pairs.names[i] for i in range(len(pairs))]
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    found = list(pool.map(functools.partial(_checked_size, pairs), names, chunksize=64))
  problems = [f"{pairs.images}/{name}: {f}" for name, f in zip(names, found, strict=True) if isinstance(f, str)]
  if problems:
    more = [f"and {len(problems) - 5:,} more"] if problems[5:] else []
    raise UserError("\n  ".join([f"{pairs.root}: {len(problems):,} of {len(pairs):,} pairs:", *problems[:5], *more]))
  return np.array(found, np.int32).reshape(-1, 2)


def _checked_size(pairs, name):
  """(height, width), or what is wrong as text; (0, 0) if a header is damaged, which training and evaluation report."""
  image, label = _files(pairs, name)
  try:
    size = transforms.file_size(image)
    label_maps.check_size(label_maps.file_size(label), size)
  except ImageError:
    return 0, 0
  except UserError as error:
    return str(error)
  return size
