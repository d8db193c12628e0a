"""Writes the arrays of a .safetensors file as torch.save would write {"model": arrays}, without torch.

python zip_writer.py from.safetensors to.pth
"""

import collections
import io
import pickle
import sys
import types
import zipfile

from safetensors.numpy import load_file

# Stand-ins, so that the pickle refers to torch's names.
torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")


class FloatStorage:
  """A type that is only named."""


def _rebuild_tensor_v2():
  """A function that is only named."""


FloatStorage.__module__, _rebuild_tensor_v2.__module__ = "torch", "torch._utils"
torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2
sys.modules |= {"torch": torch, "torch._utils": utils}


class Storage:
  """What persistent_id turns into a reference."""

  def __init__(self, key, array):
    self.key, self.array = key, array


class Tensor:
  """Pickled as torch pickles one."""

  def __init__(self, storage):
    self.storage = storage

  def __reduce__(self):
    array = self.storage.array
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return _rebuild_tensor_v2, (self.storage, 0, array.shape, strides, False, collections.OrderedDict())


class Pickler(pickle.Pickler):
  """With storages as references."""

  def persistent_id(self, obj):
    return ("storage", FloatStorage, obj.key, "cpu", obj.array.size) if isinstance(obj, Storage) else None


def main(source, target):
  storages = {name: Storage(str(i), array) for i, (name, array) in enumerate(load_file(source).items())}
  data = io.BytesIO()
  Pickler(data, 2).dump({"model": {name: Tensor(storage) for name, storage in storages.items()}})
  with zipfile.ZipFile(target, "w") as file:
    file.writestr("archive/data.pkl", data.getvalue())
    for storage in storages.values():
      file.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
    file.writestr("archive/version", "3\n")


if __name__ == "__main__":
  main(*sys.argv[1:])
