"""Writes .pth files as torch.save does, without torch; what torch itself wrote is in tests/data/torch."""

import collections
import io
import pickle
import zipfile


def save(path, arrays):
  """{name: float32 array} as torch.save writes {"model": state dict}: references in a pickle, data in zip members."""
  storages = {name: _Storage(str(i), array) for i, (name, array) in enumerate(arrays.items())}
  data = io.BytesIO()
  _Pickler(data, 2).dump({"model": {name: _Tensor(storage) for name, storage in storages.items()}})
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", data.getvalue())
    for storage in storages.values():
      file.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
    file.writestr("archive/version", "3\n")


class _Name:
  """Pickled as a reference to something of torch."""

  def __init__(self, module, name):
    self.module, self.name = module, name

  def __call__(self):
    """Called by whoever unpickles it."""


_REBUILD = _Name("torch._utils", "_rebuild_tensor_v2")
_FLOATS = _Name("torch", "FloatStorage")


class _Storage:
  def __init__(self, key, array):
    self.key, self.array = key, array


class _Tensor:
  def __init__(self, storage):
    self.storage = storage

  def __reduce__(self):
    array = self.storage.array
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return _REBUILD, (self.storage, 0, array.shape, strides, False, collections.OrderedDict())


class _Pickler(pickle._Pickler):
  def persistent_id(self, obj):
    return ("storage", _FLOATS, obj.key, "cpu", obj.array.size) if isinstance(obj, _Storage) else None

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, _Name):
      self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
    else:
      super().save(obj, save_persistent_id)
