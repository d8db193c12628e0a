"""Datasets of Hugging Face's library `datasets`: "hf:OWNER/NAME" or "hf:OWNER/NAME,CONFIG" on the Hub, or "hf:/path".

A directory is one that `save_to_disk` wrote, or has parquet files, as a repository on the Hub has. Examples are read by
index from the library's memory-mapped Arrow files, and images stay encoded until a row is made of them.
"""

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import importlib.util
import os
import re
from typing import Any

import numpy as np

from mlpvision.data import directories, image_files
from mlpvision.errors import UserError, printable

PREFIX = "hf:"
_ON_HUB = re.compile(r"([\w.-]+/)?[\w.-]+(,[\w.-]+)?")
_ADVICE = {"image": 'cast_column("image", datasets.Image())', "label": 'class_encode_column("label")'}
_SAVED = ("dataset_dict.json", "state.json")  # of several splits, of one


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """Examples by index: {"image": encoded bytes, "label": int, "file_name": as the dataset has it, or ""}.

  Attributes:
    table: of the library, with the images' column alone. It is memory-mapped, and pickled as the names of its files.
    rows: int64 [images], of the table.
    labels: int32 [images]; -1 where there is none.
    class_names: of the labels.
  """

  table: Any
  rows: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = range(len(self))[index]
    found = self.table.fast_slice(int(self.rows[index]), 1).column(0)[0].as_py() or {}
    data, path = found.get("bytes"), found.get("path") or ""
    if data is None:
      data = image_files.read(path) if path else b""
    return {"image": data, "label": int(self.labels[index]), "file_name": os.path.basename(path)}

  def digest(self) -> str:
    """A hash of the classes, the labels and the sizes of the images, in their order; the files may be anywhere."""
    import pyarrow.compute as pc

    column = self.table.column(0)
    sizes = pc.fill_null(pc.binary_length(pc.struct_field(column, "bytes")), -1).to_numpy()[self.rows]
    parts = [repr(self.class_names).encode(), self.labels.tobytes(), sizes.astype(np.int64).tobytes()]
    if (sizes < 0).any():  # in files of their own
      paths = pc.struct_field(column, "path").to_pylist()
      parts += [os.path.basename(paths[row] or "").encode() for row in self.rows]
    return hashlib.md5(b"\0".join(parts)).hexdigest()


def check(name: str, task: str = "classification") -> None:
  """Raises UserError, within milliseconds: no such directory, another form of name, or another task."""
  if task != "classification":
    raise UserError(f"{name}: Hugging Face's datasets are for classification alone, and task is {task!r}")
  if importlib.util.find_spec("datasets") is None:
    raise UserError(f"{name} needs the library datasets, which is not installed: pip install 'mlpvision[datasets]'")
  path = _path(name)
  if path is None:
    if not _ON_HUB.fullmatch(name.removeprefix(PREFIX)):
      raise UserError(f"data.name={name!r}: write hf:OWNER/NAME, hf:OWNER/NAME,CONFIG or the path of a directory")
  elif not os.path.isdir(path):
    raise UserError(f"{name}: there is no directory {path}")
  elif not _is_saved(path) and not _has_parquet(path):
    raise UserError(
      f"{path} has no {' or '.join(_SAVED)} of save_to_disk, and no parquet files. For a folder of images, write"
      f" {directories.PREFIX}{path}"
    )


def is_local(name: str) -> bool:
  """Whether a dataset's name is that of a directory."""
  return name.startswith(PREFIX) and _path(name) is not None


def prepare(name: str) -> list[str]:
  """Downloads and prepares a dataset, unless the library's cache has it; returns its splits. Raises UserError."""
  check(name)
  return list(_opened(name))


def open_images(name: str, split: str) -> tuple[Images, str]:
  """(images, actual name of the split) of a dataset and a split in tfds's notation.

  The whole split has the dataset's own order. A slice such as "train[:90%]" takes nine tenths of every class.

  A dataset on the Hub is downloaded and prepared once, by the library, in its own cache ($HF_HOME).

  Raises UserError: `check`, the library cannot open the dataset, there is no such split, or not one column of images
  and one of class labels.
  """
  check(name)
  splits = _opened(name)
  wanted, selector = directories.parse_split(name, split)
  base = directories.match_split(wanted, tuple(splits))
  if base is None:
    hint = ' Set, for example, --config.data.train_split="train[:90%]" --config.data.eval_split="train[90%:]"'
    raise UserError(f"{name} has no split {wanted!r}, only {', '.join(splits)}.{hint if len(splits) == 1 else ''}")
  found = splits[base]
  image, label = _columns(name, found.features)
  table = found.select_columns([image, label]).data
  labels = table.column(label).to_numpy()
  labels = np.where(np.isnan(labels), -1, labels).astype(np.int32) if labels.dtype.kind == "f" else np.int32(labels)
  rows = np.arange(len(labels))
  if selector:
    start, stop = directories.bounds(selector, len(rows), f"{name}, split {split!r}")
    rows = _interleaved(labels)[start:stop]
  class_names = tuple(found.features[label].names)
  return Images(table.select([image]), rows, labels[rows], class_names), base + selector


@functools.lru_cache(maxsize=8)
def _opened(name):
  """{split: datasets.Dataset}."""
  import datasets

  path = _path(name)
  try:
    if path and _is_saved(path):
      found = datasets.load_from_disk(path)
    else:
      dataset, _, config = name.removeprefix(PREFIX).partition(",")
      found = datasets.load_dataset(path, None) if path else datasets.load_dataset(dataset, config or None)
  except Exception as error:  # of the library and of those below it, of any kind
    reason = printable((str(error).splitlines() or [""])[0][:300]) or type(error).__name__
    raise UserError(
      f"{name}: the library datasets cannot open it by index: {reason}.\nA dataset that is a script or a stream must"
      " first be saved as images and labels, with Dataset.save_to_disk"
    ) from error
  return dict(found) if isinstance(found, Mapping) else {str(found.split or "train").partition("[")[0]: found}


def _columns(name, features):
  """The names of the columns of images and of labels."""
  import datasets

  columns = []
  for kind, noun, usual in ((datasets.Image, "image", "image"), (datasets.ClassLabel, "class label", "label")):
    found = [column for column, feature in features.items() if isinstance(feature, kind)]
    chosen = usual if usual in found else found[0] if len(found) == 1 else None
    if chosen is None:
      listed = ", ".join(f"{column} ({_kind(feature)})" for column, feature in features.items())
      what = f"has {len(found)} columns of type {kind.__name__}, {', '.join(found)}" if found else f"has no {noun}"
      advice = "select_columns" if found else _ADVICE[usual]
      raise UserError(
        f"{name} {what}; its columns are {listed}.\nIt needs one column of images and one of class labels: change it"
        f" with Dataset.{advice} and write it with save_to_disk"
      )
    columns.append(chosen)
  return columns


def _kind(feature):
  return str(getattr(feature, "dtype", None) if type(feature).__name__ == "Value" else type(feature).__name__)


def _interleaved(labels):
  """The rows in an order in which every part has about the same share of each class: int64 [images]."""
  order = np.argsort(labels, kind="stable")
  _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
  rank = np.arange(len(labels)) - np.repeat(starts, counts)
  return order[np.argsort((rank + 0.5) / np.repeat(counts, counts), kind="stable")]


def _path(name):
  """The directory of a name; None for a name on the Hub."""
  path = name.removeprefix(PREFIX)
  return os.path.expanduser(path) if path.startswith(("/", ".", "~")) else None


def _is_saved(path):
  return any(os.path.isfile(os.path.join(path, file)) for file in _SAVED)


def _has_parquet(path):
  return any(file.endswith(".parquet") for _, _, files in os.walk(path) for file in files)
