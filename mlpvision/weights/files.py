"""Weight files as mappings from names to arrays: reads .npz, .safetensors and .pth, writes .npz and .safetensors."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import os
import tempfile
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from mlpvision import zips
from mlpvision.weights import npz, pth, safetensors as safetensors_lib
from mlpvision.weights.errors import WeightsError, shortened

# Files that are often mistaken for weights, by their first bytes.
_OTHERS = (
  (b"<", "is a web page, not weights: the download failed"),
  (b"version https://git-lfs", "is a git-lfs pointer, not the weights"),
  (b"\x89HDF", "is an HDF5 file, an unsupported format"),
)
# More than any model has: finding the family of a file takes time for each name.
_MAX_ARRAYS, _MAX_NAME = 10_000, 250
# A file of n bytes may take 3 n + 400 MB of memory while it is loaded.
_MEMORY = 400_000_000
_PIECE = 1 << 20
_AGAIN = "Download or copy it again."
_FLOATS = "Weights must be floating-point numbers of 16, 32 or 64 bits: convert them before saving."


class WeightFile:
  """A weight file. Arrays are read one at a time, so that a large file is never in memory twice.

  Attributes:
    path: of the file.
    format: "npz", "safetensors" or "pth", from the content, not the suffix.
    names: of the arrays.
    metadata: {str: str}, from a .safetensors file.
    ema: whether a .pth file has both weights and their average (EMA), and which of them this is; None if it has one.
  """

  def __init__(self, path: str | os.PathLike, ema: bool | None = None) -> None:
    """ema: for a .pth file, see `pth.choose`. Raises WeightsError if the file is damaged or too large."""
    self.path, self.metadata, self.ema = os.fspath(path), {}, None
    self.format = _sniff(self.path)
    try:
      if self.format == "npz":
        self._arrays = npz.read(self.path)
      elif self.format == "safetensors":
        self._arrays, self.metadata = safetensors_lib.read(self.path)
      else:
        weights, average = pth.state_dicts(self.path)
        self._arrays = pth.choose(self.path, weights, average, ema)
        self.ema = self._arrays is average if weights and average else None
    except WeightsError:
      raise
    except Exception as error:
      raise WeightsError(self.path, f"is damaged ({shortened(error)})", _AGAIN) from error
    if ema and self.format != "pth":
      raise WeightsError(self.path, "has no average of its weights (EMA)", "Only training checkpoints (.pth) have one.")
    self.names = list(self._arrays)
    if not self.names:
      raise WeightsError(self.path, "contains no arrays")
    if len(self.names) > _MAX_ARRAYS or max(map(len, self.names)) > _MAX_NAME:
      problem = f"contains {len(self.names):,} arrays, with names of up to {max(map(len, self.names)):,} characters"
      raise WeightsError(self.path, problem, f"No model has more than {_MAX_ARRAYS:,}, or names of {_MAX_NAME}.")

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of an array, as it is in the file."""
    return self._arrays[name].shape

  def check_memory(self, names: Iterable[str]) -> None:
    """Raises WeightsError if reading these arrays would take more than three times the file's size and 400 MB."""
    arrays = [self._arrays[name] for name in names]
    numbers = 4 * sum(array.size for array in arrays)  # as float32
    # One array at a time is also in memory as it is in the file.
    one = max((array.size * getattr(array.dtype, "itemsize", 1) for array in arrays), default=0)
    size = os.path.getsize(self.path)
    if numbers + one > 3 * size + _MEMORY:
      problem = f"would take {(numbers + one) / 1e9:,.1f} GB of memory, but the file has {size / 1e9:,.3f} GB"
      raise WeightsError(self.path, problem, "Its arrays are compressed, or several names share their numbers.")

  def read(self, name: str, transform: Callable[[np.ndarray], np.ndarray] = lambda array: array) -> np.ndarray:
    """A new float32 array, in C order; WeightsError if it is damaged or not finite.

    transform: rearranges the array, before it is copied. Its errors are raised.
    """
    tensor = self._arrays[name]
    if tensor.dtype == "Python objects":
      raise WeightsError(self.path, f"its array {name} contains Python objects", _FLOATS)
    if not isinstance(tensor.dtype, np.dtype) or (tensor.dtype.kind != "f" and tensor.dtype != ml_dtypes.bfloat16):
      raise WeightsError(self.path, f"its array {name} is of type {tensor.dtype}", _FLOATS)
    try:
      array = tensor.numpy()
    except Exception as error:
      raise WeightsError(self.path, f"its array {name} is damaged ({shortened(error)})", _AGAIN) from error
    with np.errstate(over="ignore"):  # values too large for float32 are reported below
      array = np.array(transform(array), np.float32, order="C")
    flat = array.reshape(-1)
    bad = sum(np.count_nonzero(~np.isfinite(flat[at : at + _PIECE])) for at in range(0, flat.size, _PIECE))
    if bad:
      problem = f"its array {name} has {bad} of {array.size} numbers that are NaN or infinite"
      advice = "Training diverged, or the file is damaged. Use an earlier checkpoint or another copy."
      raise WeightsError(self.path, problem, advice)
    return array


def _sniff(path):
  if not os.path.isfile(path):
    raise WeightsError(path, "is not a file" if os.path.exists(path) else "does not exist")
  with open(path, "rb") as file:
    head = file.read(64)
  if not head:
    raise WeightsError(path, "is empty", _AGAIN)
  if head[:4] == b"PK\x03\x04":
    return _sniff_zip(path)
  if head[4:9] == b"\0\0\0\0{":  # the length of a header of less than 4 GB, and the header
    return "safetensors"
  if head[:1] == b"\x80":  # a pickle: torch before 1.6
    return "pth"
  for start, problem in _OTHERS:
    if head.lstrip().startswith(start):
      raise WeightsError(path, problem, "Download it again, and check its size.")
  raise WeightsError(path, f"is not a .npz, .safetensors or .pth file: it starts with {head[:16]!r}")


def _sniff_zip(path):
  try:
    names = list(zips.members(path))
  except Exception as error:
    advice = "It is probably truncated. Compare its size, and download or copy it again."
    raise WeightsError(path, f"is a damaged zip archive ({shortened(error)})", advice) from error
  if any(name.endswith("/data.pkl") for name in names):
    return "pth"
  if any(name.endswith(".npy") for name in names):
    return "npz"
  raise WeightsError(
    path, f"is a zip archive, but neither .npz nor .pth; it contains {shortened(', '.join(names[:5]))}"
  )


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
