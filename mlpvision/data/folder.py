"""A folder of images as a dataset, "folder:/path": /path/SPLIT/CLASS/IMAGE, or /path/CLASS/IMAGE without splits.

Classes are the sorted names of their directories. A split has a fixed order, on any machine: the images of each class
are sorted by a hash of the file name, and the classes are interleaved evenly. A slice such as "train[:90%]" therefore
contains nine tenths of every class.
"""

import collections
import dataclasses
import hashlib
import os
from typing import Any

import numpy as np

from mlpvision.data import directories, image_files, notes
from mlpvision.data.directories import listed, scan
from mlpvision.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """Examples by index, read from files: {"image": encoded bytes, "label": int, "file_name": "CLASS/FILE"}.

  Attributes:
    directory: of the split.
    class_names: sorted.
    labels: int32 [images].
    names: of the files, without the class.
  """

  directory: str
  class_names: tuple[str, ...]
  labels: np.ndarray
  names: directories.Names

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = range(len(self))[index]
    file_name = self.file_name(index)
    data = image_files.read(os.path.join(self.directory, file_name))
    return {"image": data, "label": int(self.labels[index]), "file_name": file_name}

  def file_name(self, index: int) -> str:
    """Of an image: "CLASS/FILE"."""
    return f"{self.class_names[self.labels[index]]}/{self.names[index]}"

  def digest(self) -> str:
    """A hash of the classes and of the names and order of the images; the directory may be anywhere."""
    parts = (repr(self.class_names).encode(), self.labels.tobytes(), self.names.tobytes())
    return hashlib.md5(b"".join(parts)).hexdigest()


def check(name: str) -> None:
  """Raises UserError, within milliseconds, if there is no such directory, or no directory in it."""
  root = directories.root(name)
  if "directory" not in (kind for _, kind in scan(root)):
    raise UserError(f"{name}: {root} has no directories. Expected {root}/CLASS/*.jpg or {root}/train/CLASS/*.jpg")


def open_images(name: str, split: str) -> tuple[Images, str]:
  """(images, actual name of the split) of "folder:/path" and a split in tfds's notation.

  Raises UserError if there is no such directory or split, or it is not organized in classes.
  """
  check(name)
  wanted, selector = directories.parse_split(name, split)
  base, directory = _find_split(directories.root(name), wanted)
  images = _list_images(directory)
  if selector:
    start, stop = directories.bounds(selector, len(images), f"{name}, split {split!r}")
    part = dict(labels=images.labels[start:stop], names=images.names.part(start, stop))
    images = dataclasses.replace(images, **part)
  return images, base + selector


def _find_split(root, wanted):
  """(name, directory) of a split."""
  names = sorted(entry for entry, kind in scan(root) if kind == "directory")
  # What a directory contains, from its first entry of either kind.
  contents = {entry: next((kind for _, kind in scan(root / entry) if kind), None) for entry in names}
  splits, others = ([e for e in names if contents[e] == kind] for kind in ("directory", "image"))
  if wanted in splits:
    return wanted, root / wanted
  if splits and others:
    raise UserError(
      f"{root}: {listed(splits)} contain directories, {listed(others)} contain images. Expected only classes"
      f" ({root}/CLASS/*.jpg) or only splits ({root}/train/CLASS/*.jpg)"
    )
  if splits:
    found = directories.match_split(wanted, splits)
    if found:
      return found, root / found
    raise UserError(f"{root} has no split {wanted!r}; its directories are {', '.join(splits)}")
  if wanted == "train":
    return wanted, root
  raise UserError(
    f"{root} has no split {wanted!r}, only classes ({listed(names)}). Set, for example,"
    ' --config.data.train_split="train[:90%]" --config.data.eval_split="train[90%:]"'
  )


def _list_images(directory):
  """The `Images` in DIRECTORY/CLASS/, in their fixed order."""
  entries = sorted(scan(directory), key=lambda entry: entry[0])
  class_names, stray = ([entry for entry, kind in entries if kind == wanted] for wanted in ("directory", "image"))
  if stray:
    raise UserError(f"{directory} has images outside of a class: {listed(stray)}. Expected CLASS/*.jpg")
  files, ignored, empty = [], collections.Counter(), []
  for class_name in class_names:
    of_class = []
    for entry, kind in scan(directory / class_name):
      if kind == "directory":
        raise UserError(
          f"{directory / class_name} contains a directory, {entry}, but a class may contain only images. If it contains"
          f" the classes, set --config.data.name={directories.PREFIX}{directory / class_name}"
        )
      if kind == "image":
        of_class.append(os.fsencode(entry))
      else:
        ignored["hidden" if entry.startswith(".") else os.path.splitext(entry)[1].lower() or "no suffix"] += 1
    if not of_class:
      empty.append(class_name)
    files.append(sorted(of_class, key=lambda entry: hashlib.md5(entry).digest()))
  kinds = ", ".join(f"{count:,} {kind}" for kind, count in ignored.most_common(5))
  note = f"ignored {ignored.total():,} files that are not images in a supported format ({kinds})" if ignored else ""
  if empty:
    suffixes = "|".join(sorted(directories.SUFFIXES))
    raise UserError(f"{directory} has classes without images ({suffixes}{note and f'; {note}'}): {listed(empty)}")
  if note:
    notes.say(f"{directory}: {note}")

  counts = np.array([len(of_class) for of_class in files])
  labels = np.repeat(np.arange(len(files), dtype=np.int32), counts)
  rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  order = np.argsort((rank + 0.5) / counts[labels], kind="stable")
  flat = [entry for of_class in files for entry in of_class]
  ordered = (flat[i] for i in order)
  return Images(os.fspath(directory), tuple(class_names), labels[order], directories.Names.of(ordered))
