"""The batches of one host as rows by position: which rows a batch has, and arrays that rows are written into."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
from typing import Any

import numpy as np

from mlpvision.data.reads import Ahead

_ALIGNMENT = 64  # bytes; JAX takes an aligned array on CPU without a copy


@dataclasses.dataclass(frozen=True)
class Batches:
  """Batch i has the rows at `size` positions from (first + i * stride) * size on.

  Attributes:
    rows: rows[position] is a row: a dict, nested with dicts and tuples, of arrays. All rows of a batch have the same
      shapes.
    index: index(position) is the index of the example that the row is made of, or None.
    source: where rows read their examples, by index.
    count: number of batches.
  """

  rows: Any
  index: Callable[[int], int | None]
  source: Ahead
  size: int
  count: int
  first: int = 0
  stride: int = 1

  def positions(self, number: int) -> range:
    """The positions of a batch's rows."""
    start = (self.first + number * self.stride) * self.size
    return range(start, start + self.size)

  def expect(self, positions: range) -> None:
    """Starts reading what the rows at these positions, which come next, are made of."""
    for position in positions if self.source.threads else ():
      index = self.index(position)
      if index is not None:
        self.source.expect(index)

  def load(self, number: int) -> dict[str, Any]:
    """A batch: the structure of a row, with arrays [size, ...]."""
    positions = self.positions(number)
    row = self.rows[positions[0]]
    arrays = Layout.of(row, self.size).map(lambda field: np.empty(field.shape, field.dtype))
    put(arrays, 0, row)
    for i in range(1, self.size):
      put(arrays, i, self.rows[positions[i]])
    return arrays


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
  """One array of a batch in a buffer: where it begins, in bytes, its shape, and its dtype's name."""

  offset: int
  shape: tuple[int, ...]
  dtype: str

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * np.dtype(self.dtype).itemsize

  def view(self, buffer: np.ndarray) -> np.ndarray:
    """This array in a buffer, uint8 [bytes]."""
    return buffer[self.offset : self.offset + self.nbytes].view(self.dtype).reshape(self.shape)


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
  """The arrays of a batch in one buffer: a structure of `Field`, and the buffer's size in bytes."""

  fields: Any
  nbytes: int

  @classmethod
  def of(cls, row: Any, size: int) -> "Layout":
    """The layout of `size` rows like this one."""
    end = 0

    def place(value):
      nonlocal end
      value = np.asarray(value)
      field = Field(end, (size, *value.shape), value.dtype.str)
      end += -(-field.nbytes // _ALIGNMENT) * _ALIGNMENT
      return field

    return cls(_map(place, row), end)

  def map(self, function: Callable[[Field], np.ndarray]) -> Any:
    """The structure with function(field) in place of each field."""
    return _map(function, self.fields)


def _map(function, tree):
  if isinstance(tree, Mapping):
    return {name: _map(function, value) for name, value in tree.items()}
  if isinstance(tree, tuple):
    return tuple(_map(function, value) for value in tree)
  return function(tree)


def put(arrays: Any, i: int, row: Any) -> None:
  """Writes a row of the same structure to row i of arrays. ValueError: it has another shape."""
  for array, value in _pairs(arrays, row):
    value = np.asarray(value)
    if value.shape != array.shape[1:]:
      raise ValueError(f"rows of a batch have different shapes: {value.shape} and {array.shape[1:]}")
    array[i] = value


def _pairs(arrays, row) -> Iterator[tuple[np.ndarray, Any]]:
  if isinstance(arrays, dict):
    for name, part in arrays.items():
      yield from _pairs(part, row[name])
  elif isinstance(arrays, tuple):
    for part, value in zip(arrays, row, strict=True):
      yield from _pairs(part, value)
  else:
    yield arrays, row
