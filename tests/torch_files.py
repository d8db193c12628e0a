"""Writes .pth files as torch.save does, without torch; what torch itself wrote is in tests/data/torch."""

import collections
import io
import pickle
import zipfile

import numpy as np


def save(path, arrays):
  """{name: float32 array} as torch.save writes {"model": state dict}: references in a pickle, data in zip members."""
  write(path, {"model": arrays})


def write(path, content):
  """What torch.save(content, path) writes; arrays are tensors."""
  data = io.BytesIO()
  pickler = _Pickler(data, 2)
  pickler.dump(content)
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", data.getvalue())
    for storage in pickler.storages.values():
      file.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
    file.writestr("archive/version", "3\n")


class Object:
  """Pickled as an object of a class that need not exist."""

  def __init__(self, module, name, arguments=(), state=None):
    self.reduced = _Name(module, name), arguments, state

  def __reduce__(self):
    return self.reduced


class Float8:
  """Pickled as a tensor of torch.float8_e4m3fn, of zeros."""

  def __init__(self, shape):
    self.shape = shape


class _Name:
  """Pickled as a reference to something of torch."""

  def __init__(self, module, name):
    self.module, self.name = module, name

  def __call__(self):
    """Called by whoever unpickles it."""


_REBUILD = _Name("torch._utils", "_rebuild_tensor_v2")
_REBUILD_V3 = _Name("torch._utils", "_rebuild_tensor_v3")
_FLOATS, _BYTES = _Name("torch", "FloatStorage"), _Name("torch.storage", "UntypedStorage")


class _Storage:
  def __init__(self, key, array, kind):
    self.key, self.array, self.kind = key, array, kind


class _Tensor:
  def __init__(self, rebuild, storage, shape, strides, *more):
    self.reduced = rebuild, (storage, 0, shape, strides, False, collections.OrderedDict(), *more)

  def __reduce__(self):
    return self.reduced


class _Pickler(pickle._Pickler):
  def __init__(self, file, protocol):
    super().__init__(file, protocol)
    self.storages = {}  # also keeps alive what was pickled, so that no two objects have the same id

  def persistent_id(self, obj):
    return ("storage", obj.kind, obj.key, "cpu", obj.array.size) if isinstance(obj, _Storage) else None

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, _Name):
      self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
    else:
      super().save(self._as_tensor(obj), save_persistent_id)

  def _as_tensor(self, obj):
    if not isinstance(obj, np.ndarray | Float8):
      return obj
    key = str(len(self.storages))
    if isinstance(obj, Float8):
      self.storages[key] = _Storage(key, np.zeros(obj.shape, np.uint8), _BYTES)
      strides = self.storages[key].array.strides
      more = (_Name("torch", "float8_e4m3fn"),)
      self.storages[key].tensor = _Tensor(_REBUILD_V3, self.storages[key], obj.shape, strides, *more)
    else:
      self.storages[key] = _Storage(key, obj, _FLOATS)
      strides = tuple(stride // obj.itemsize for stride in obj.strides)
      self.storages[key].tensor = _Tensor(_REBUILD, self.storages[key], obj.shape, strides)
    return self.storages[key].tensor
