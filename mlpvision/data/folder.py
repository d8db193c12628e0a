"""Any folder of images as a dataset, "folder:/path": /path/SPLIT/CLASS/IMAGE, or /path/CLASS/IMAGE without splits.

Classes are the names of their directories, sorted. The images of a split have a fixed order, so that slices of it mean
something: each class is put in the order of a hash of the file names, and the classes are then interleaved evenly.
"train[:90%]" thus has nine tenths of every class, wherever the folder lies, on any machine.
"""

import collections
import dataclasses
import functools
import hashlib
import os
import re
from typing import Any

from etils import epath
import numpy as np

from mlpvision.errors import UserError

PREFIX = "folder:"
SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())

# A split for evaluation has many names. One stands for another where only one of them is there.
_VALIDATION = ("val", "valid", "validation")
_HELD_OUT = (*_VALIDATION, "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """Examples by index, read from their files: {"image": encoded bytes, "label": int, "file_name": "CLASS/FILE"}.

  All names lie in one array, so that a million of them cost what their letters cost, and travel to a worker at once.
  """

  directory: str
  class_names: tuple[str, ...]
  labels: np.ndarray  # int32 [images]
  names: np.ndarray  # uint8, the file names one after the other
  ends: np.ndarray  # int64 [images]: where each one ends

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = range(len(self))[index]
    file_name = f"{self.class_names[self.labels[index]]}/{self._name(index)}"
    path = epath.Path(self.directory) / file_name
    try:
      data = path.read_bytes()
    except OSError as error:
      raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return {"image": data, "label": int(self.labels[index]), "file_name": file_name}

  def _name(self, index):
    start = self.ends[index - 1] if index else 0
    return os.fsdecode(self.names[start : self.ends[index]].tobytes())


def check(name: str) -> None:
  """Raises UserError, within milliseconds, where there is no such directory or none inside it."""
  root = _root(name)
  if not root.is_dir():
    raise UserError(f"{name}: there is no directory {root}")
  if not any(is_dir and not _hidden(entry) for entry, is_dir in _scan(root)):
    raise UserError(f"{name}: {root} has no directories. Expected {root}/CLASS/*.jpg or {root}/train/CLASS/*.jpg")


def open_images(name: str, split: str) -> tuple[Images, str]:
  """(Images, the split with its directory's own name) of "folder:/path" and a split in tfds's notation.

  Raises:
    UserError: no such directory or split, or something in it that is not a class full of images.
  """
  check(name)
  spec = re.fullmatch(r"\s*([^\[\]+]+?)\s*(\[[^\]]*\])?\s*", split)
  if spec is None:
    raise UserError(f"split {split!r} of {name}: one split, as in train or train[:90%]")
  root = _root(name)
  base, directory = _find_split(root, spec[1])
  images = _list(directory)
  if spec[2]:
    images = _slice(images, spec[2], f"{name}, split {split!r}")
  return images, base + (spec[2] or "")


def _root(name):
  return epath.Path(name.removeprefix(PREFIX)).expanduser()


def _hidden(entry):
  return entry.startswith(".")


def _is_image(entry):
  return os.path.splitext(entry)[1].lower() in SUFFIXES


def _scan(path):
  """(name, is it a directory) of what is in a directory. What has the suffix of an image is taken for a file."""
  try:
    if "://" not in os.fspath(path):
      with os.scandir(path) as entries:
        for entry in entries:
          yield entry.name, not _is_image(entry.name) and entry.is_dir()
    else:
      for entry in path.iterdir():
        yield entry.name, not _is_image(entry.name) and entry.is_dir()
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _holds(path):
  """What a directory holds: "directories", "images" or None, by the first entry that tells."""
  for entry, is_dir in _scan(path):
    if not _hidden(entry) and (is_dir or _is_image(entry)):
      return "directories" if is_dir else "images"
  return None


def _find_split(root, wanted):
  """(name, directory) of a split."""
  folders = {entry: _holds(root / entry) for entry, is_dir in _scan(root) if is_dir and not _hidden(entry)}
  splits = sorted(entry for entry, holds in folders.items() if holds == "directories")
  if wanted in splits:
    return wanted, root / wanted
  others = sorted(entry for entry, holds in folders.items() if holds == "images")
  if splits and others:
    raise UserError(
      f"{root}: {_some(splits)} hold directories, {_some(others)} hold images. Expected classes everywhere"
      f" ({root}/CLASS/*.jpg) or splits everywhere ({root}/train/CLASS/*.jpg)"
    )
  if splits:
    for names in (_VALIDATION, _HELD_OUT):
      found = [entry for entry in splits if entry in names]
      if wanted in names and len(found) == 1:
        return found[0], root / found[0]
    raise UserError(f"{root} has no split {wanted!r}; its directories are {', '.join(splits)}")
  if wanted == "train":
    return wanted, root
  raise UserError(
    f"{root} has no splits, only classes ({_some(sorted(folders))}), and so no {wanted!r}. Cut it:"
    ' --config.data.train_split="train[:90%]" --config.data.eval_split="train[90%:]"'
  )


def _list(directory):
  """All images under DIRECTORY/CLASS/, in their fixed order."""
  class_names, stray = [], []
  for entry, is_dir in _scan(directory):
    if is_dir and not _hidden(entry):
      class_names.append(entry)
    elif _is_image(entry) and not _hidden(entry):
      stray.append(entry)
  if stray:
    raise UserError(f"{directory} holds images outside any class: {_some(sorted(stray))}. Expected CLASS/*.jpg")
  class_names.sort()
  if len(class_names) < 2:
    raise UserError(f"{directory} has only one class, {class_names[0]}; a classifier needs two")

  files, ignored, empty = [], collections.Counter(), []
  for class_name in class_names:
    of_class = []
    for entry, is_dir in _scan(directory / class_name):
      if _hidden(entry):
        ignored["hidden"] += 1
      elif is_dir:
        raise UserError(
          f"{directory / class_name} holds a directory, {entry}; a class must hold its images itself. If the classes"
          f" lie further down, name their folder: {PREFIX}{directory / class_name}"
        )
      elif _is_image(entry):
        of_class.append(os.fsencode(entry))
      else:
        ignored[os.path.splitext(entry)[1].lower() or "no suffix"] += 1
    if not of_class:
      empty.append(class_name)
    files.append(sorted(of_class, key=lambda entry: hashlib.md5(entry).digest()))
  if empty:
    raise UserError(f"{directory} has classes without images ({'|'.join(sorted(SUFFIXES))}): {_some(empty)}")
  if ignored:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in ignored.most_common(5))
    _say_once(f"{directory}: ignored {ignored.total():,} files that are not images ({kinds})")

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
def _say_once(message):
  print(message, flush=True)


def _slice(images, selector, what):
  """`images` without those that the selector, "[:90%]", leaves out."""
  import tensorflow_datasets as tfds

  length = tfds.core.SplitInfo(name="train", shard_lengths=[len(images)], num_bytes=0)
  try:
    (part,) = tfds.core.ReadInstruction.from_spec(f"train{selector}").to_absolute({"train": length})
  except ValueError as error:
    raise UserError(f"{what}: {error}") from error
  start, stop, _ = slice(part.from_, part.to).indices(len(images))
  if stop <= start:
    raise UserError(f"{what} has none of the {len(images):,} images")
  begin = images.ends[start - 1] if start else 0
  return dataclasses.replace(
    images,
    labels=images.labels[start:stop],
    names=images.names[begin : images.ends[stop - 1]],
    ends=images.ends[start:stop] - begin,
  )


def _some(names):
  return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
