"""Weight files as mappings from names to arrays: reads .npz, .safetensors and .pth, writes .npz and .safetensors."""

from collections.abc import Iterator, Mapping
import contextlib
import os
import tempfile
from typing import Any

import ml_dtypes  # importing it adds bfloat16 to NumPy, for safetensors
import numpy as np
import safetensors
import safetensors.numpy

from mlpvision.weights import pth
from mlpvision.weights.errors import WeightsError

# Files that are often mistaken for weights, by their first bytes.
_OTHERS = (
  (b"<", "is a web page, not weights: the download failed"),
  (b"version https://git-lfs", "is a git-lfs pointer, not the weights"),
  (b"\x89HDF", "is an HDF5 file, an unsupported format"),
)


class WeightFile:
  """A weight file. Arrays are read one at a time, so that a large file is never in memory twice.

  Attributes:
    path: of the file.
    format: "npz", "safetensors" or "pth", from the content, not the suffix.
    names: of the arrays.
    metadata: {str: str}, from a .safetensors file.
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
      raise WeightsError(self.path, "contains no arrays")

  def __getitem__(self, name: str) -> np.ndarray:
    """A finite float32 array, possibly a read-only view of the file; WeightsError if it is damaged or not finite."""
    try:
      if self.format == "safetensors":
        with safetensors.safe_open(self.path, "np") as file:  # closing it frees the array's pages
          array = file.get_tensor(name)
      else:
        array = self._file[name] if self.format == "npz" else self._file[name].numpy()
    except Exception as error:
      what = "contains Python objects" if "Object arrays" in str(error) else f"is damaged ({error})"
      raise WeightsError(self.path, f"its array {name} {what}", "Weights must be floating-point numbers.") from error
    if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
      problem = f"its array {name} is of type {array.dtype}"
      raise WeightsError(self.path, problem, "Weights must be floating-point numbers.")
    with np.errstate(over="ignore"):  # values too large for float32 are reported below
      array = array.astype(np.float32, copy=False)
    if bad := np.count_nonzero(~np.isfinite(array)):
      problem = f"its array {name} has {bad} of {array.size} numbers that are NaN or infinite"
      advice = "Training diverged, or the file is damaged. Use an earlier checkpoint or another copy."
      raise WeightsError(self.path, problem, advice)
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
      raise WeightsError(path, problem, "Download it again, and check its size.")
  raise WeightsError(path, f"is not a .npz, .safetensors or .pth file: it starts with {head[:16]!r}")


def _sniff_zip(path):
  try:
    with np.load(path, allow_pickle=False) as archive:
      names = archive.zip.namelist()
  except Exception as error:
    advice = "It is probably truncated. Compare its size, and download or copy it again."
    raise WeightsError(path, f"is a damaged zip archive ({error})", advice) from error
  if any(name.endswith("/data.pkl") for name in names):
    return "pth"
  if any(name.endswith(".npy") for name in names):
    return "npz"
  raise WeightsError(path, f"is a zip archive, but neither .npz nor .pth; it contains {', '.join(names[:5])}")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
  """The path of a temporary file in the same directory; it replaces `path` when the context ends without an error."""
  directory, name = os.path.split(os.fspath(path))
  with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory or ".") as parent:
    temporary = os.path.join(parent, name)
    yield temporary
    os.replace(temporary, path)


def write(path: str | os.PathLike, arrays: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
  """Writes arrays as float32, in the format of the suffix; the file appears only when it is complete.

  Args:
    path: ends in .npz or .safetensors.
    arrays: {name: anything that np.asarray accepts}.
    metadata: {str: str} for .safetensors; .npz cannot store it.
  """
  suffix = os.path.splitext(path)[1]
  if suffix not in (".npz", ".safetensors"):
    raise WeightsError(path, f"cannot be written: its suffix is {suffix!r}", "Use .safetensors, or .npz for a Mixer.")
  arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
  with replacing(path) as temporary:
    if suffix == ".npz":
      np.savez(temporary, **arrays)
    else:
      safetensors.numpy.save_file(arrays, temporary, metadata)
