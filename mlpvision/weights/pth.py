"""Reads torch.save files (.pth) without torch, and without running code from them.

A .pth file is a pickle that refers to raw tensor data. `pickles.Machine` reads the pickle; only a short list of names
may be in it: tensors, containers, and records of a run's options, which official checkpoints contain. Tensor data is
memory-mapped and read on demand.
"""

import io
import mmap
import os
import re

import ml_dtypes
import numpy as np

from mlpvision import zips
from mlpvision.weights import pickles
from mlpvision.weights.errors import WeightsError, shortened
from mlpvision.weights.tensors import Tensor

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
# Functions that create tensors and parameters.
_TENSORS = {("torch._utils", f"_rebuild_tensor{version}") for version in ("", "_v2", "_v3")}
_PARAMETERS = {("torch._utils", f"_rebuild_parameter{more}") for more in ("", "_with_state")}
# Options, schedules, paths and NumPy scalars in checkpoints. Their content is ignored.
_INERT = {
  ("argparse", "Namespace"),
  ("types", "SimpleNamespace"),
  ("yacs.config", "CfgNode"),
  ("_codecs", "encode"),
  ("collections", "Counter"),
  ("collections", "OrderedDict"),
  ("collections", "defaultdict"),
  *(("numpy", name) for name in ("dtype", "ndarray")),
  *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
  *((module, name) for module in ("builtins", "__builtin__") for name in ("dict", "float", "int", "list", "set")),
  *(
    (module, f"{kind}{system}Path")
    for module in ("pathlib", "pathlib._local")
    for kind in ("", "Pure")
    for system in ("Posix", "Windows")
  ),
  *(("torch", name) for name in ("device", "Size", *_DTYPES)),
  *((module, "UntypedStorage") for module in ("torch", "torch.storage")),  # of a type without storages, such as float8
}
_KNOWN = _INERT | _TENSORS | _PARAMETERS
_TORCH_DTYPE = re.compile(r"(?:float|bfloat|int|uint|complex)\d\w*|bool")
# Where training checkpoints have their weights, and where the average of the weights (EMA).
_STATE_KEYS = ("state_dict", "model", "model_state_dict", "module")
_AVERAGE_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class _Storage:
  """Numbers of one type in the file: dtype and count; read() returns their bytes."""

  def __init__(self, dtype, count, read=None):
    self.dtype, self.count, self.read = dtype, count, read


class _Reader(pickles.Machine):
  """Reads the pickle of a file: tensors become `Tensor`s."""

  def __init__(self, path, storage, data, start=0):
    """storage: makes a `_Storage` from (key, dtype, count)."""
    super().__init__(data, start)
    self._path, self._storage = path, storage

  def named(self, module, name):
    if (module, name) in _KNOWN or (module == "torch" and _TORCH_DTYPE.fullmatch(name)):
      return pickles.Name(module, name)
    save = 'torch.save(model.state_dict(), "weights.pth")'
    advice = f"If you trust the file, load it with PyTorch and save only its state dict: {save}"
    reference = f"refers to {shortened(f'{module}.{name}')}, which weights do not need, and loading it could run code"
    bottom = self._outer[0] if self._outer else self._stack
    if type(bottom[0] if bottom else None) is dict:
      raise WeightsError(self._path, f"is rejected: it {reference}", advice)
    raise WeightsError(self._path, f"is a whole pickled object, not a state dict: it {reference}", advice)

  def called(self, function, arguments):
    if (function.module, function.name) in _PARAMETERS:
      if not arguments or type(arguments[0]) is not Tensor:
        raise ValueError("it has a parameter that is not a tensor")
      return arguments[0]
    if (function.module, function.name) not in _TENSORS:
      return pickles.Inert()
    if len(arguments) < 4 or type(arguments[0]) is not _Storage:
      raise ValueError("it has a tensor without a storage")
    storage, offset, shape, strides, *more = arguments
    if type(shape) is not tuple or type(strides) is not tuple:
      raise ValueError("it has a tensor without a shape")
    dtype = storage.dtype
    if function.name == "_rebuild_tensor_v3" and len(more) > 2 and type(more[2]) is pickles.Name:
      dtype = f"torch.{more[2].name}"
    return Tensor(lambda: storage.read(), dtype, storage.count, shape, strides, offset)

  def referred(self, reference):
    if type(reference) is not tuple or len(reference) < 5:
      raise ValueError("it has an unknown reference to data")
    kind, dtype, key, _, count, *view = reference
    name = dtype.name if type(dtype) is pickles.Name else ""
    if type(kind) is not str or kind != "storage" or name not in (*_DTYPES, "UntypedStorage"):
      raise ValueError("it has an unknown reference to data")
    if type(key) not in (str, int) or type(count) is not int or not 0 <= count < 2**60:
      raise ValueError("it has a storage without a name or a size")
    if any(one is not None for one in view):
      raise ValueError("it has a view of a storage")
    return self._storage(str(key), np.dtype(_DTYPES.get(name, np.uint8)), count)


def state_dicts(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
  """The state dicts {name: Tensor} of (the weights, their average) in a .pth file; a missing one is empty.

  They may be at the top level or, in a training checkpoint, under one of several usual keys.

  Raises:
    WeightsError: the file is not a .pth file, is damaged, has no state dict, or refers to anything but weights.
  """
  try:
    with open(path, "rb") as file:
      is_zip = file.read(4) == b"PK\x03\x04"
    content = _read_zip(path) if is_zip else _read_legacy(path)
  except WeightsError:
    raise
  except Exception as error:  # a damaged pickle can raise any exception
    problem = f"is damaged or not a torch.save file ({shortened(error)})"
    raise WeightsError(path, problem, "Download or copy it again.") from error
  weights, average = _under(content, _STATE_KEYS) or _tensors(content), _under(content, _AVERAGE_KEYS)
  if weights or average:
    return weights, average
  found = "something else"
  if type(content) is dict:
    found = f"a dict with the keys {', '.join(shortened(key, 40) for key in list(content)[:10]) or 'none'}"
  advice = f"It may be at the top level, or in {' or '.join(_STATE_KEYS)}."
  raise WeightsError(path, f"contains no state dict but {found}", advice)


def choose(path: str | os.PathLike, weights: dict, average: dict, ema: bool | None) -> dict[str, Tensor]:
  """`weights` or `average`; WeightsError if the file does not have it.

  ema: True for the average, False for the weights; None for the average if there is one.
  """
  found = average if ema or (ema is None and average) else weights
  if not found:
    which, keys = ("average of its weights (EMA)", _AVERAGE_KEYS) if ema else ("weights but their average", _STATE_KEYS)
    raise WeightsError(path, f"has no {which}", f"With ema={ema}, it should be in {' or '.join(keys)}.")
  return found


def read(path: str | os.PathLike, ema: bool | None = None) -> dict[str, Tensor]:
  """The state dict {name: Tensor} of a .pth file that `choose` takes. Raises as it and `state_dicts` do."""
  return choose(path, *state_dicts(path), ema)


def _under(content, keys, depth=3):
  """The first state dict under one of these keys; there, it may be under one of _STATE_KEYS in turn."""
  for key in keys:
    inside = content.get(key) if type(content) is dict else None
    if found := (_under(inside, _STATE_KEYS, depth - 1) if depth else None) or _tensors(inside):
      return found
  return {}


def _tensors(content):
  items = content.items() if type(content) is dict else ()
  return {name: value for name, value in items if type(name) is str and type(value) is Tensor}


def _read_zip(path):
  members = zips.members(path)
  names = [name for name in members if name.endswith("/data.pkl")]
  if len(names) != 1:
    raise WeightsError(path, "is a zip archive, but not from torch.save", "It should contain one data.pkl.")
  root = names[0].removesuffix("data.pkl")
  if order := members.get(root + "byteorder"):
    if order.size > 100 or order.read().tobytes() != b"little":
      raise WeightsError(path, "was written on a big-endian machine", "Save it again on a little-endian one.")

  def storage(key, dtype, count):
    name = f"{root}data/{key}"
    if name not in members:
      raise ValueError(f"{name} is missing")
    member = members[name]
    if not member.is_stored:
      raise ValueError(f"{member.name} is compressed")
    if count * dtype.itemsize > member.size:
      raise ValueError(f"{member.name} has {member.size} bytes, too few for {count} numbers of {dtype}")
    return _Storage(dtype, count, lambda: member.read()[: count * dtype.itemsize])

  member = members[names[0]]
  if not member.is_stored or member.size > pickles.MAX_BYTES:
    raise ValueError(f"{member.name} is compressed, or larger than {pickles.MAX_BYTES:,} bytes")
  return _Reader(path, storage, member.read().tobytes()).run()[0]


def _read_legacy(path):
  """torch before 1.6: pickles of a magic number, a version, the system, the content and storage keys; then raw data."""
  with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    storages, at = {}, 0

    def storage(key, dtype, count):
      if storages.setdefault(key, _Storage(dtype, count)).dtype != dtype or storages[key].count != count:
        raise ValueError("it has two storages with the same name")
      return storages[key]

    def load():
      nonlocal at
      content, at = _Reader(path, storage, data, at).run()
      return content

    magic, version, system = load(), load(), load()
    order = system.get("little_endian") if type(system) is dict else None
    if type(magic) is not int or magic != _LEGACY_MAGIC or type(version) is not int or version != 1001 or not order:
      raise ValueError("unknown magic number, version or byte order")
    content, keys = load(), load()
    if type(keys) is not list or any(type(key) is not str for key in keys):
      raise ValueError("it has no list of storages")
    file.seek(at)
    for key in keys:
      found = storages[key]
      count, start = int.from_bytes(file.read(8), "little"), file.tell()
      if count != found.count:
        raise ValueError(f"a storage has {count} numbers, not {found.count}")
      size = count * found.dtype.itemsize
      found.read = lambda start=start, size=size: zips.mapped(path, start, size)
      file.seek(size, io.SEEK_CUR)
    if file.tell() > len(data) or any(one.read is None for one in storages.values()):
      raise ValueError("it ends too early")
  return content
