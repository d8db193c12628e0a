"""Downloads published files into a cache directory, once."""

import os
import pathlib
import shutil
import sys
import urllib.request

import tqdm

from mlpvision.weights.errors import WeightsError
from mlpvision.weights.files import replacing
from mlpvision.weights.known import Known

_TIMEOUT = 8  # seconds without data


def fetch(entry: Known) -> str:
  """The path of an entry's file in $MLPVISION_CACHE or ~/.cache/mlpvision, downloaded first if necessary.

  Raises:
    WeightsError: the file must be downloaded manually, or the download failed; the message explains where to save it.
  """
  cache = pathlib.Path(os.environ.get("MLPVISION_CACHE") or pathlib.Path.home() / ".cache" / "mlpvision")
  path = cache / f"{entry.name}{entry.suffix}"
  if path.exists():
    return str(path)
  if entry.url is None:
    advice = f"Download it from {entry.page} and save it as {path}, or pass the path of your copy to load."
    raise WeightsError(entry.name, "cannot be downloaded by a program", advice)
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with replacing(path) as temporary, open(temporary, "wb") as file:
      _download(entry.url, file, entry.name)
  except OSError as error:  # includes urllib's errors
    advice = f"Download it on a machine with a network and save it as {path}, or pass the path of your copy to load."
    raise WeightsError(entry.name, f"could not be downloaded from {entry.url} ({error})", advice) from error
  return str(path)


def _download(url, file, name):
  request = urllib.request.Request(url, headers={"User-Agent": "mlpvision"})
  with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
    if response.headers.get_content_type() == "text/html":
      raise OSError("the server sent a web page")
    total = int(response.headers.get("Content-Length") or 0)
    interval = 0.5 if sys.stderr.isatty() else 10
    progress = dict(total=total or None, desc=name, unit="B", unit_scale=True, mininterval=interval)
    with tqdm.tqdm.wrapattr(response, "read", **progress) as body:
      shutil.copyfileobj(body, file, 1 << 20)
  if total and file.tell() != total:
    raise OSError(f"the connection closed after {file.tell():,} of {total:,} bytes")
