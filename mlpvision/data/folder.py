"""A folder of images as a dataset, "folder:/path": /path/SPLIT/CLASS/IMAGE, or /path/CLASS/IMAGE without splits.

Classes are the sorted names of their directories. A split has a fixed order, on any machine: the images of each class
are sorted by a hash of the file name, and the classes are interleaved evenly. A slice such as "train[:90%]" therefore
contains nine tenths of every class.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import os
import re
from typing import Any

from etils import epath
import numpy as np

from mlpvision.data import image_files
from mlpvision.errors import UserError, printable

PREFIX = "folder:"
# Of `image_files.FORMATS`.
SUFFIXES = frozenset(".avif .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())

# Interchangeable names of an evaluation split: if only one of them exists, it is used for the others.
_VALIDATION = ("val", "valid", "validation")
_HELD_OUT = (*_VALIDATION, "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """Examples by index, read from files: {"image": encoded bytes, "label": int, "file_name": "CLASS/FILE"}.

  All names are in one array, so that a million of them take little memory and are sent to a worker quickly.
  """

  directory: str
  class_names: tuple[str, ...]
  labels: np.ndarray  # int32 [images]
  names: np.ndarray  # uint8, the concatenated file names
  ends: np.ndarray  # int64 [images], the end of each name

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = range(len(self))[index]
    start = self.ends[index - 1] if index else 0
    name = os.fsdecode(self.names[start : self.ends[index]].tobytes())
    file_name = f"{self.class_names[self.labels[index]]}/{name}"
    data = image_files.read(os.path.join(self.directory, file_name))
    return {"image": data, "label": int(self.labels[index]), "file_name": file_name}

  def digest(self) -> str:
    """A hash of the classes and of the names and order of the images; the directory may be anywhere."""
    parts = (repr(self.class_names).encode(), self.labels.tobytes(), self.ends.tobytes(), self.names.tobytes())
    return hashlib.md5(b"".join(parts)).hexdigest()


def check(name: str) -> None:
  """Raises UserError, within milliseconds, if there is no such directory, or no directory in it."""
  root = _root(name)
  if not root.is_dir():
    raise UserError(f"{name}: there is no directory {root}")
  if "directory" not in (kind for _, kind in _scan(root)):
    raise UserError(f"{name}: {root} has no directories. Expected {root}/CLASS/*.jpg or {root}/train/CLASS/*.jpg")


def open_images(name: str, split: str) -> tuple[Images, str]:
  """(images, actual name of the split) of "folder:/path" and a split in tfds's notation.

  Raises UserError if there is no such directory or split, or it is not organized in classes.
  """
  check(name)
  spec = re.fullmatch(r"\s*([^\[\]+]+?)\s*(\[[^\]]*\])?\s*", split)
  if spec is None:
    raise UserError(f"split {split!r} of {name}: must be a single split, such as train or train[:90%]")
  root = _root(name)
  base, directory = _find_split(root, spec[1])
  images = _list_images(directory)
  if spec[2]:
    images = _slice(images, spec[2], f"{name}, split {split!r}")
  return images, base + (spec[2] or "")


def _root(name):
  return epath.Path(name.removeprefix(PREFIX)).expanduser()


def _scan(path):
  """(name, kind) of a directory's entries. Kinds are "directory", "image", by its suffix, and for others None."""
  try:
    with os.scandir(path) if "://" not in os.fspath(path) else contextlib.nullcontext(path.iterdir()) as entries:
      for entry in entries:
        if entry.name.startswith("."):
          yield entry.name, None
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
          yield entry.name, "image"
        else:
          yield entry.name, "directory" if entry.is_dir() else None
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _find_split(root, wanted):
  """(name, directory) of a split."""
  names = sorted(entry for entry, kind in _scan(root) if kind == "directory")
  # What a directory contains, from its first entry of either kind.
  contents = {entry: next((kind for _, kind in _scan(root / entry) if kind), None) for entry in names}
  splits, others = ([e for e in names if contents[e] == kind] for kind in ("directory", "image"))
  if wanted in splits:
    return wanted, root / wanted
  if splits and others:
    raise UserError(
      f"{root}: {_listed(splits)} contain directories, {_listed(others)} contain images. Expected only classes"
      f" ({root}/CLASS/*.jpg) or only splits ({root}/train/CLASS/*.jpg)"
    )
  if splits:
    for alike in (_VALIDATION, _HELD_OUT):
      found = [entry for entry in splits if entry in alike]
      if wanted in alike and len(found) == 1:
        return found[0], root / found[0]
    raise UserError(f"{root} has no split {wanted!r}; its directories are {', '.join(splits)}")
  if wanted == "train":
    return wanted, root
  raise UserError(
    f"{root} has no split {wanted!r}, only classes ({_listed(names)}). Set, for example,"
    ' --config.data.train_split="train[:90%]" --config.data.eval_split="train[90%:]"'
  )


def _list_images(directory):
  """The `Images` in DIRECTORY/CLASS/, in their fixed order."""
  entries = sorted(_scan(directory), key=lambda entry: entry[0])
  class_names, stray = ([entry for entry, kind in entries if kind == wanted] for wanted in ("directory", "image"))
  if stray:
    raise UserError(f"{directory} has images outside of a class: {_listed(stray)}. Expected CLASS/*.jpg")
  files, ignored, empty = [], collections.Counter(), []
  for class_name in class_names:
    of_class = []
    for entry, kind in _scan(directory / class_name):
      if kind == "directory":
        raise UserError(
          f"{directory / class_name} contains a directory, {entry}, but a class may contain only images. If it contains"
          f" the classes, set --config.data.name={PREFIX}{directory / class_name}"
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
    suffixes = "|".join(sorted(SUFFIXES))
    raise UserError(f"{directory} has classes without images ({suffixes}{note and f'; {note}'}): {_listed(empty)}")
  if note:
    _print_once(f"{directory}: {note}")

  counts = np.array([len(of_class) for of_class in files])
  labels = np.repeat(np.arange(len(files), dtype=np.int32), counts)
  rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  order = np.argsort((rank + 0.5) / counts[labels], kind="stable")
  flat = [entry for of_class in files for entry in of_class]
  ordered = [flat[i] for i in order]
  ends = np.cumsum([len(entry) for entry in ordered])
  names = np.frombuffer(b"".join(ordered), np.uint8)
  return Images(os.fspath(directory), tuple(class_names), labels[order], names, ends)


@functools.cache
def _print_once(message):
  print(printable(message), flush=True)


def _slice(images, selector, what):
  """The slice of `images` that a selector such as "[:90%]" describes."""
  import tensorflow_datasets as tfds

  length = tfds.core.SplitInfo(name="train", shard_lengths=[len(images)], num_bytes=0)
  try:
    (part,) = tfds.core.ReadInstruction.from_spec(f"train{selector}").to_absolute({"train": length})
  except ValueError as error:
    raise UserError(f"{what}: {error}") from error
  start, stop, _ = slice(part.from_, part.to).indices(len(images))
  if stop <= start:
    raise UserError(f"{what} contains none of the {len(images):,} images")
  begin = images.ends[start - 1] if start else 0
  return dataclasses.replace(
    images,
    labels=images.labels[start:stop],
    names=images.names[begin : images.ends[stop - 1]],
    ends=images.ends[start:stop] - begin,
  )


def _listed(names):
  return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
