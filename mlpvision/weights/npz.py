"""The arrays of a NumPy archive (.npz), without believing what its members say of their sizes."""

import ast
import math
import os
import warnings

import ml_dtypes
import numpy as np

from mlpvision import zips
from mlpvision.weights.tensors import Tensor

_MAX_HEADER = 1024  # NumPy writes 118 bytes


def read(path: str | os.PathLike) -> dict[str, Tensor]:
  """{name: Tensor} of the .npy members. ValueError, or another exception of parsing, if one is damaged."""
  members = (member for member in zips.members(path).values() if member.name.endswith(".npy"))
  return {member.name.removesuffix(".npy"): _tensor(member) for member in members}


def _tensor(member):
  head = member.head(12 + _MAX_HEADER)
  version = head[6:7]
  start = 10 if version == b"\x01" else 12
  length = int.from_bytes(head[8:start], "little")
  if head[:6] != b"\x93NUMPY" or version not in (b"\x01", b"\x02", b"\x03") or length > _MAX_HEADER:
    raise ValueError(f"{member.name} does not start with the header of an array, of up to {_MAX_HEADER} bytes")
  with warnings.catch_warnings(action="ignore"):  # of Python's parser, about what only a damaged header contains
    header = ast.literal_eval(head[start : start + length].decode("latin1").strip())
  start, shape, dtype = start + length, header["shape"], _dtype(header["descr"])
  if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
    raise ValueError(f"{member.name} has no valid shape")
  count = math.prod(shape)
  if isinstance(dtype, np.dtype) and start + count * dtype.itemsize != member.size:
    raise ValueError(f"{member.name} has {member.size} bytes, not those of an array {shape} of {dtype}")
  strides = [math.prod(shape[:axis]) for axis in range(len(shape))] if header["fortran_order"] else None
  return Tensor(lambda: member.read()[start:], dtype, count, shape, strides)


def _dtype(text):
  """The dtype of a header, or a name for what is not an array of numbers."""
  if type(text) is not str or len(text) > 20:
    return "structures"
  dtype = np.dtype(text)
  if dtype.hasobject:
    return "Python objects"
  # NumPy writes types that it does not know, such as bfloat16 and float8, as so many bytes of anything.
  if dtype.kind == "V" and not dtype.subdtype and not dtype.names:
    return np.dtype(ml_dtypes.bfloat16) if dtype.itemsize == 2 else f"{dtype} (float8, if it has one byte)"
  return dtype
