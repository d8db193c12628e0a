"""Published files from the network into a cache directory, once."""

import os
import pathlib
import shutil
import sys
import tempfile
import urllib.request

import tqdm

from mlpvision.weights.errors import WeightsError
from mlpvision.weights.known import Known

# Seconds without an answer or a byte: a machine without a network should say so soon.
_TIMEOUT = 8


def cache_dir() -> pathlib.Path:
  """$MLPVISION_CACHE, or ~/.cache/mlpvision."""
  return pathlib.Path(os.environ.get("MLPVISION_CACHE") or pathlib.Path.home() / ".cache" / "mlpvision")


def fetch(entry: Known) -> str:
  """The path of a known entry's file, from the cache or else from its url.

  Raises:
    WeightsError: it can only be had by hand, or the network failed; the message says what to put where.
  """
  path = cache_dir() / f"{entry.name}{entry.suffix}"
  if path.exists():
    return str(path)
  if entry.url is None:
    advice = f"Fetch it from {entry.page} and save it as {path}, or pass the path of your copy to load."
    raise WeightsError(entry.name, "its authors offer no direct download", advice)
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(path.suffix, ".downloading-", path.parent)
  try:
    with os.fdopen(handle, "wb") as file:
      _download(entry.url, file, entry.name)
    os.replace(temporary, path)
  except BaseException as error:
    os.unlink(temporary)
    if isinstance(error, OSError):  # urllib's errors are OSErrors too
      advice = f"Download it where there is a network and save it as {path}, or pass the path of your copy to load."
      raise WeightsError(entry.name, f"could not be downloaded from {entry.url} ({error})", advice) from error
    raise
  return str(path)


def _download(url, file, name):
  request = urllib.request.Request(url, headers={"User-Agent": "mlpvision"})
  with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
    if response.headers.get_content_type() == "text/html":
      raise OSError("the answer is a web page")
    total = int(response.headers.get("Content-Length") or 0)
    progress = dict(
      total=total or None, desc=name, unit="B", unit_scale=True, mininterval=0.5 if sys.stderr.isatty() else 10
    )
    with tqdm.tqdm.wrapattr(response, "read", **progress) as body:
      shutil.copyfileobj(body, file, 1 << 20)
  if total and file.tell() != total:
    raise OSError(f"the connection closed after {file.tell():,} of {total:,} bytes")
