"""Checked pieces on disk, and the shards that are made of them in the order in which tfds shuffles.

A part has the examples of one piece, packed, in a file NUMBER.data: in runs, each sorted by split and by tfds's hash
of the key, so that a shard, which is a range of hashes, finds its examples side by side. NUMBER.index has their hashes
and sizes; it is written last, so a part is finished if it has one.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import io
import json
import os

from etils import epath
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, hashing, writer

from mlpvision.prepare.pieces import Note, Piece, unpack

_RUN = 256 * 2**20  # bytes of examples that are sorted in memory
_COLUMNS = ("split", "high", "low", "size")  # of an index: split's number, halves of the hash, bytes of the example


@dataclasses.dataclass(frozen=True)
class Examples:
  """Where examples are: arrays with one entry for each, the number of its part, its offset there, and its size."""

  part: np.ndarray
  offset: np.ndarray
  size: np.ndarray

  def __len__(self) -> int:
    return len(self.part)

  def __getitem__(self, which: slice | np.ndarray) -> "Examples":
    return Examples(self.part[which], self.offset[which], self.size[which])


def is_finished(folder: epath.Path, number: int) -> bool:
  """Whether a part was written, completely."""
  return (folder / f"{number}.index").exists()


def write(piece: Piece, folder: epath.Path, number: int, splits: Sequence[str]) -> None:
  """Checks a piece and writes part `number`."""
  hashers, numbers = [hashing.Hasher(split) for split in splits], {split: i for i, split in enumerate(splits)}
  notes, rows, run = [], [], []

  def flush(file):
    run.sort(key=lambda entry: entry[:2])
    for split, key_hash, data in run:
      rows.append((split, key_hash >> 64, key_hash & 2**64 - 1, len(data)))
      file.write(data)
    run.clear()

  with _whole(folder / f"{number}.data") as path, path.open("wb") as file:
    waiting = 0
    for entry in piece():
      if isinstance(entry, Note):
        notes.append(entry)
        continue
      split = numbers[entry.split]
      data = entry.pack()
      run.append((split, hashers[split].hash_key(entry.key), data))
      waiting += len(data)
      if waiting > _RUN:
        flush(file)
        waiting = 0
    flush(file)
  columns = np.array(rows, np.uint64).reshape(-1, len(_COLUMNS)).T
  content = io.BytesIO()
  np.savez(content, **dict(zip(_COLUMNS, columns, strict=True)), notes=np.array(json.dumps(notes)))
  with _whole(folder / f"{number}.index") as path:
    path.write_bytes(content.getvalue())


def read_indices(
  folder: epath.Path, count: int, splits: Sequence[str]
) -> tuple[dict[str, Examples], dict[str, Examples], list[Note]]:
  """({split: its examples by their hashes}, {split: those that have the key of an earlier one}, notes) of all parts."""
  columns, parts, offsets, notes = {name: [] for name in _COLUMNS}, [], [], []
  for number in range(count):
    with np.load(io.BytesIO((folder / f"{number}.index").read_bytes())) as index:
      for name, column in columns.items():
        column.append(index[name])
      notes += [Note(*note) for note in json.loads(str(index["notes"]))]
      sizes = index["size"]
    parts.append(np.full(len(sizes), number, np.int32))
    offsets.append(np.cumsum(sizes) - sizes)
  split, high, low, size = (np.concatenate(column) for column in columns.values())
  everything = Examples(np.concatenate(parts), np.concatenate(offsets).astype(np.int64), size.astype(np.int64))
  found, repeated = {}, {}
  for i, name in enumerate(splits):
    of_split = np.flatnonzero(split == i)
    order = of_split[np.lexsort((low[of_split], high[of_split]))]  # stable: the first in the archive comes first
    again = np.zeros(len(order), bool)
    again[1:] = (high[order[1:]] == high[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
    found[name], repeated[name] = everything[order[~again]], everything[order[again]]
  return found, repeated, notes


def read(folder: epath.Path, examples: Examples) -> list[bytes]:
  """The packed examples; neighbors in a part are read at once."""
  order = np.lexsort((examples.offset, examples.part))
  part, offset, size = (getattr(examples, name)[order] for name in ("part", "offset", "size"))
  is_first = np.ones(len(order), bool)
  is_first[1:] = (part[1:] != part[:-1]) | (offset[1:] != offset[:-1] + size[:-1])
  found, starts = [b""] * len(order), [*np.flatnonzero(is_first), len(order)]
  for start, end in zip(starts[:-1], starts[1:], strict=True):
    first = int(offset[start])
    with (folder / f"{part[start]}.data").open("rb") as file:
      file.seek(first)
      data = memoryview(file.read(int(size[start:end].sum())))
    for i in range(start, end):
      at = int(offset[i]) - first
      found[order[i]] = data[at : at + int(size[i])]
  return found


def write_shard(
  folder: epath.Path,
  path: epath.Path,
  examples: Examples,
  features: tfds.features.FeatureConnector,
  example_writer: writer.ExampleWriter,
) -> None:
  """Writes examples as a file of the dataset, as tfds does; the file is there once it is complete.

  Its bytes depend on the examples alone: tfds would serialize the features of each in an order that varies by process.
  """
  serializer = example_serializer.ExampleSerializer(features.get_serialized_info())

  def serialized():
    for i, data in enumerate(read(folder, examples)):
      example = serializer.get_tf_example(features.encode_example(unpack(data)[1]))
      yield i, example.SerializeToString(deterministic=True)

  with _whole(path) as temporary:
    example_writer.write(temporary, serialized())


def keys(folder: epath.Path, examples: Examples) -> list[str | int]:
  """The keys of examples."""
  return [unpack(data)[0] for data in read(folder, examples)]


@contextlib.contextmanager
def _whole(path: epath.Path) -> Iterator[epath.Path]:
  """A path to write to, which is renamed at the end; it is on the disk by then."""
  with tfds.core.utils.incomplete_file(path) as temporary:
    yield temporary
    if "://" not in os.fspath(path):
      with temporary.open("rb") as file:
        os.fsync(file.fileno())
