"""An array of a weight file, before it is read: its type and shape, checked against the bytes that the file has."""

from collections.abc import Callable, Sequence
import math

import numpy as np


class Tensor:
  """A strided view of a run of numbers in a file.

  Attributes:
    dtype: a NumPy dtype, or the name of a type that NumPy does not have.
    shape: tuple of ints.
  """

  __slots__ = ("_bytes", "_count", "_offset", "_strides", "dtype", "shape")

  def __init__(
    self,
    read: Callable[[], np.ndarray],
    dtype: np.dtype | str,
    count: int,
    shape: Sequence[int],
    strides: Sequence[int] | None = None,
    offset: int = 0,
  ) -> None:
    """ValueError if the view shows a number that is not among the `count` numbers in the file.

    read: returns the numbers as uint8 [count * itemsize].
    shape, strides, offset: in numbers; by default the last index varies fastest.
    """
    self._bytes, self.dtype, self.shape, self._offset = read, dtype, tuple(shape), offset
    if len(self.shape) > 16 or any(type(n) is not int or not 0 <= n < 2**60 for n in self.shape):
      raise ValueError("its shape is invalid")
    if strides is None:
      strides = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
    self._strides, self._count = tuple(strides), count
    numbers = (offset, *self._strides[:17])
    if len(self._strides) != len(self.shape) or any(type(n) is not int or not 0 <= n < 2**60 for n in numbers):
      raise ValueError("its strides are invalid")
    last = offset + sum((n - 1) * step for n, step in zip(self.shape, self._strides, strict=True))
    if self.size and last >= count:
      raise ValueError(f"it needs {last + 1} numbers of a storage of {count}")

  @property
  def size(self) -> int:
    """The number of its numbers."""
    return math.prod(self.shape)

  def numpy(self) -> np.ndarray:
    """A read-only array in the type of the file; a view of the mapped file unless that is compressed.

    ValueError if the bytes are damaged, or if it shows more numbers than there are, as an expanded tensor does.
    """
    if not self.size:
      return np.empty(self.shape, self.dtype)
    if self.size > self._count:
      raise ValueError(f"it shows {self.size} numbers of a storage of {self._count}: save it as a contiguous tensor")
    data = self._bytes().view(self.dtype)
    strides = [step * data.itemsize for step in self._strides]
    return np.lib.stride_tricks.as_strided(data[self._offset :], self.shape, strides, writeable=False)
