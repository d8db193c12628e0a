"""The arrays of a .safetensors file: a JSON header with types, shapes and positions, then the numbers."""

import json
import os

import ml_dtypes
import numpy as np

from mlpvision.weights.tensors import Tensor
from mlpvision.zips import mapped

_MAX_HEADER = 16 << 20  # with 1,000 arrays, 21,843 class names and the options of a model, it has less than 1 MB
_DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U64": np.uint64,
  "U32": np.uint32,
  "U16": np.uint16,
  "U8": np.uint8,
  "BOOL": np.bool_,
}


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
  """({name: Tensor}, metadata). ValueError, or another exception of parsing, if the file is damaged."""
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    start, size = 8 + length, os.path.getsize(path) - 8 - length
    if length > _MAX_HEADER or size < 0:
      raise ValueError(f"its header of {length:,} bytes is longer than the file or {_MAX_HEADER:,} bytes")
    header = json.loads(file.read(length))
  metadata, found, end = header.pop("__metadata__", None) or {}, {}, 0
  if type(metadata) is not dict or any(type(text) is not str for text in metadata.values()):
    raise ValueError("its metadata is not text")
  for name, entry in header.items():
    try:
      found[name], last = _tensor(path, entry, start, size)
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(f"its array {name[:200]}: {str(error)[:200]}") from error
    end = max(end, last)
  if end != size:
    raise ValueError(f"its arrays have {end:,} bytes, but the file has {size:,} after the header")
  return found, metadata


def _tensor(path, entry, start, size):
  """(Tensor, the position of its end)."""
  begin, end = entry["data_offsets"]
  if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= size:
    raise ValueError("is not in the file")
  dtype = entry["dtype"]
  if type(dtype) is str and dtype in _DTYPES:
    dtype = np.dtype(_DTYPES[dtype])
    count, rest = divmod(end - begin, dtype.itemsize)
  else:  # packed or unknown: it cannot be read, only named
    dtype, count, rest = str(dtype)[:100], end - begin, 0
  tensor = Tensor(lambda: mapped(path, start + begin, end - begin), dtype, count, entry["shape"])
  if rest or (tensor.size != count and isinstance(dtype, np.dtype)):
    raise ValueError(f"has {end - begin} bytes, not those of the shape {list(tensor.shape)}")
  return tensor, end
