"""Weight files as mappings from names to arrays: .npz, .safetensors and .pth in; .npz and .safetensors out."""

from collections.abc import Mapping
import os
import tempfile
from typing import Any

import ml_dtypes  # its import gives NumPy the bfloat16 that safetensors asks for
import numpy as np
import safetensors
import safetensors.numpy

from mlpvision.weights import pth
from mlpvision.weights.errors import WeightsError

# What people save by accident under the name of a weight file, by its first bytes.
_OTHERS = (
  (b"<", "is a web page, not weights: the download did not go through"),
  (b"version https://git-lfs", "is a git-lfs pointer, not the weights themselves"),
  (b"\x89HDF", "is an HDF5 file, which is not read here"),
)


class WeightFile:
  """The names in a weight file, and its arrays one at a time, so that a large file is never in memory twice.

  Attributes:
    path: of the file.
    format: "npz", "safetensors" or "pth", told by the content, whatever the suffix says.
    metadata: {str: str}; what a .safetensors file carries beside its arrays.
  """

  def __init__(self, path: str | os.PathLike) -> None:
    self.path, self.metadata = os.fspath(path), {}
    self.format = _sniff(self.path)
    try:
      if self.format == "npz":
        self._file = np.load(self.path, allow_pickle=False)
        self.names = list(self._file.files)
      elif self.format == "safetensors":
        with safetensors.safe_open(self.path, "np") as file:
          self.names, self.metadata = list(file.keys()), file.metadata() or {}
      else:
        self._file = pth.read(self.path)
        self.names = list(self._file)
    except WeightsError:
      raise
    except Exception as error:
      raise WeightsError(self.path, f"is damaged ({error})", "Download or copy it again.") from error
    if not self.names:
      raise WeightsError(self.path, "holds no arrays")

  def __getitem__(self, name: str) -> np.ndarray:
    """float32, finite, possibly a read-only view of the file."""
    try:
      if self.format == "safetensors":
        with safetensors.safe_open(self.path, "np") as file:  # open for one array: its pages go when it closes
          array = file.get_tensor(name)
      else:
        array = self._file[name] if self.format == "npz" else self._file[name].numpy()
    except Exception as error:
      what = "holds Python objects" if "Object arrays" in str(error) else f"is damaged ({error})"
      advice = "Only arrays of floating-point numbers load."
      raise WeightsError(self.path, f"its array {name} {what}", advice) from error
    if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
      raise WeightsError(self.path, f"its array {name} is of type {array.dtype}", "Weights are floating-point numbers.")
    with np.errstate(over="ignore"):  # a float64 that float32 cannot hold is reported just below
      array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
      bad = int((~np.isfinite(array)).sum())
      raise WeightsError(
        self.path,
        f"its array {name} has {bad} of {array.size} numbers that are NaN or infinite",
        "The training that wrote it diverged, or the file is damaged; use an earlier checkpoint or another copy.",
      )
    return array


def _sniff(path):
  if not os.path.isfile(path):
    raise WeightsError(path, "is a directory, not a file" if os.path.isdir(path) else "does not exist")
  with open(path, "rb") as file:
    head = file.read(64)
  if not head:
    raise WeightsError(path, "is empty", "Download or copy it again.")
  if head[:4] == b"PK\x03\x04":
    return _sniff_zip(path)
  if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= os.path.getsize(path):
    return "safetensors"
  if head[:1] == b"\x80":  # a pickle: torch before 1.6
    return "pth"
  for start, problem in _OTHERS:
    if head.lstrip().startswith(start):
      raise WeightsError(path, problem, "Download it again, and look at the file's size.")
  raise WeightsError(
    path, f"is no .npz, .safetensors or .pth file, whatever its name says: it starts with {head[:16]!r}"
  )


def _sniff_zip(path):
  try:
    with np.load(path, allow_pickle=False) as archive:
      names = archive.zip.namelist()
  except Exception as error:
    advice = "It is likely truncated: compare its size, and download or copy it again."
    raise WeightsError(path, f"is a damaged zip archive ({error})", advice) from error
  if any(name.endswith("/data.pkl") for name in names):
    return "pth"
  if any(name.endswith(".npy") for name in names):
    return "npz"
  raise WeightsError(path, f"is a zip archive, but neither .npz nor .pth; it holds {', '.join(names[:5])}")


def write(path: str | os.PathLike, arrays: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
  """Writes {name: array} as float32, in the format of the suffix, and puts it in place only when it is complete.

  Args:
    path: ends in .npz or .safetensors.
    arrays: anything that np.asarray takes.
    metadata: {str: str} for .safetensors; .npz has no place for it.
  """
  path = os.fspath(path)
  suffix = os.path.splitext(path)[1]
  if suffix not in (".npz", ".safetensors"):
    raise WeightsError(path, f"cannot be written: its suffix is {suffix!r}", "Use .safetensors, or .npz for a Mixer.")
  arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
  handle, temporary = tempfile.mkstemp(suffix, ".writing-", os.path.dirname(path) or ".")
  os.close(handle)
  try:
    if suffix == ".npz":
      np.savez(temporary, **arrays)
    else:
      safetensors.numpy.save_file(arrays, temporary, metadata)
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def _umask():
  mask = os.umask(0)
  os.umask(mask)
  return mask
