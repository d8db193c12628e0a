"""Reads torch.save files (.pth) without torch, and without running code from them.

A .pth file is a pickle that refers to raw tensor data. A pickle can call any function by name. This unpickler accepts
only a short list of names: tensors, containers, and records of a run's options, which official checkpoints contain.
Tensor data is memory-mapped and read on demand.
"""

import collections
from collections.abc import Callable, Sequence
import io
import os
import pickle
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np

from mlpvision.weights.errors import WeightsError

_DTYPES = {
  "FloatStorage": np.float32,
  "DoubleStorage": np.float64,
  "HalfStorage": np.float16,
  "BFloat16Storage": ml_dtypes.bfloat16,
  "LongStorage": np.int64,
  "IntStorage": np.int32,
  "ShortStorage": np.int16,
  "CharStorage": np.int8,
  "ByteStorage": np.uint8,
  "BoolStorage": np.bool_,
}
# Options, schedules and NumPy scalars in checkpoints. Their content is ignored.
_INERT = {
  ("argparse", "Namespace"),
  ("types", "SimpleNamespace"),
  ("yacs.config", "CfgNode"),
  ("numpy", "dtype"),
  ("numpy.core.multiarray", "scalar"),
  ("numpy._core.multiarray", "scalar"),
  ("_codecs", "encode"),
  ("torch", "device"),
  ("torch", "Size"),
}
_STATE_KEYS = ("model", "state_dict")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Tensor:
  """A tensor of the file, as a strided view of a storage."""

  def __init__(
    self, storage: Callable[[], np.ndarray], offset: int, shape: Sequence[int], strides: Sequence[int]
  ) -> None:
    self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)

  def numpy(self) -> np.ndarray:
    """A read-only view of the mapped file; ValueError if it exceeds the storage."""
    data = self.storage()
    numbers = (self.offset, *self.shape, *self.strides)
    if len(self.shape) != len(self.strides) or any(type(n) is not int or n < 0 for n in numbers):
      raise ValueError("its shape or strides are invalid")
    last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
    if 0 not in self.shape and last >= data.size:
      raise ValueError(f"it needs {last + 1} numbers of a storage of {data.size}")
    strides = [step * data.itemsize for step in self.strides]
    return np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides, writeable=False)


class _Inert(dict):
  """Replaces an object whose content is ignored; nothing in the pickle can change it."""

  def __new__(cls, *args, **kwargs):
    return super().__new__(cls)

  def __init__(self, *args, **kwargs):
    super().__init__()

  def __setstate__(self, state):
    pass

  def __setitem__(self, key, value):
    pass


class _Ordered(collections.OrderedDict):
  """A state dict without the attributes that torch adds (_metadata)."""

  def __setstate__(self, state):
    pass


class _Unpickler(pickle.Unpickler):
  def __init__(self, file, path, storage):
    super().__init__(file, encoding="latin1")
    self._path, self._storage = path, storage

  def find_class(self, module, name):
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return lambda storage, offset, shape, strides, *rest: Tensor(storage, offset, shape, strides)
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
      return lambda tensor, *rest: tensor
    if (module, name) == ("collections", "OrderedDict"):
      return _Ordered
    if module == "torch" and name in _DTYPES:
      return np.dtype(_DTYPES[name])
    if (module, name) in _INERT:
      return _Inert
    raise WeightsError(
      self._path,
      f"is rejected: it refers to {module}.{name}, which weights do not need, and loading it could run code",
      "If you trust the file, load it with PyTorch and save only the state dict: "
      'torch.save(torch.load(file, weights_only=False)["model"], "weights.pth")',
    )

  def persistent_load(self, pid):
    kind, dtype, key, _, count, *view = pid
    if kind != "storage" or not isinstance(dtype, np.dtype) or any(view):
      raise ValueError(f"unknown reference {pid!r}")
    return self._storage(str(key), dtype, count)


def read(path: str | os.PathLike) -> dict[str, Tensor]:
  """The state dict {name: Tensor} of a .pth file in zip or older format; of a checkpoint, "model" or "state_dict".

  Raises:
    WeightsError: the file is not a .pth file, is damaged, has no state dict, or refers to anything but weights.
  """
  try:
    content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
  except WeightsError:
    raise
  except Exception as error:  # a damaged pickle can raise any exception
    raise WeightsError(path, f"is damaged or not a torch.save file ({error})", "Download or copy it again.") from error
  return _state_dict(path, content)


def _state_dict(path, content):
  found = f"a {type(content).__name__}"
  if isinstance(content, dict):
    for candidate in (content, *(content.get(key) for key in _STATE_KEYS)):
      if isinstance(candidate, dict):
        tensors = {name: value for name, value in candidate.items() if isinstance(value, Tensor)}
        if tensors:
          return tensors
    found = f"a dict with the keys {list(content)[:10]}"
  raise WeightsError(path, f"contains no state dict but {found}", f"It may be at the top level or in {_STATE_KEYS}.")


def _read_zip(path):
  archive = zipfile.ZipFile(path)
  entries = {info.filename: info for info in archive.infolist()}
  pickles = [name for name in entries if name.endswith("/data.pkl")]
  if len(pickles) != 1:
    raise WeightsError(path, "is a zip archive, but not from torch.save", "It should contain one data.pkl.")
  root = pickles[0].removesuffix("data.pkl")
  if root + "byteorder" in entries and _member(path, entries[root + "byteorder"]).tobytes() != b"little":
    raise WeightsError(path, "was written on a big-endian machine", "Save it again on a little-endian one.")

  def storage(key, dtype, count):
    return lambda: _member(path, entries[f"{root}data/{key}"])[: count * dtype.itemsize].view(dtype)

  return _Unpickler(io.BytesIO(_member(path, entries[pickles[0]]).tobytes()), path, storage).load()


def _member(path, info):
  """The mapped bytes of an uncompressed zip member."""
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f"{info.filename} is compressed")
  with open(path, "rb") as file:
    file.seek(info.header_offset + 26)
    name_size, extra_size = struct.unpack("<HH", file.read(4))
  raw = _map(path, info.header_offset + 30 + name_size + extra_size, info.file_size)
  if info.CRC and zlib.crc32(raw) != info.CRC:  # torch can be configured to write 0
    raise ValueError(f"{info.filename} has the wrong checksum")
  return raw


def _map(path, start, size):
  """uint8 [size]; its pages are freed with the array, so that a file and a copy of it are never both in memory."""
  return np.memmap(path, np.uint8, "r", start, (size,)) if size else np.empty(0, np.uint8)


def _read_legacy(path):
  """torch before 1.6: pickles of a magic number, a version, the system, the content and storage keys; then raw data."""
  starts, item_sizes = {}, {}
  with open(path, "rb") as file:

    def storage(key, dtype, count):
      item_sizes[key] = dtype.itemsize
      return lambda: _map(path, starts[key], count * dtype.itemsize).view(dtype)

    def load():
      return _Unpickler(file, path, storage).load()

    if load() != _LEGACY_MAGIC or load() != 1001 or not load()["little_endian"]:
      raise ValueError("unknown magic number, version or byte order")
    content, keys = load(), load()
    for key in keys:
      (count,) = struct.unpack("<q", file.read(8))
      starts[str(key)] = file.tell()
      file.seek(count * item_sizes[str(key)], io.SEEK_CUR)
    if file.tell() > file.seek(0, io.SEEK_END):
      raise ValueError("it ends too early")
  return content
