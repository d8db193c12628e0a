"""The meta of a checkpoint: JSON in WORKDIR/checkpoints/STEP/meta/metadata, with the checksums of all that was saved.

Earlier versions saved no checksum of meta itself, no step and no metrics. Their checkpoints are read without these.
"""

from collections.abc import Mapping
import json
import math
from typing import Any
import zlib

from etils import epath

from mlpvision import workdir as workdir_lib

ARRAYS = ("params", "ema", "evaluated", "stats", "ema_stats", "train")  # the items of a checkpoint, except meta


def seal(meta: Mapping[str, Any], checksums: Mapping[str, int]) -> dict[str, Any]:
  """A copy of `meta` as it is after a round trip through JSON, with the checksums of the arrays and of itself."""
  meta = json.loads(json.dumps({**meta, "checksums": checksums}))
  return {**meta, "checksums": {**checksums, "meta": _checksum(meta)}}


def read(directory: epath.Path, step: int) -> dict[str, Any]:
  """The meta of a checkpoint in a run's directory of checkpoints. Raises an exception if it is not what was saved."""
  path = directory / str(step) / "meta" / "metadata"
  if not workdir_lib.is_file(path):
    raise FileNotFoundError(f"{path} is no file")
  meta = json.loads(path.read_text())
  checksums = meta["checksums"]
  if not checksums.keys() <= {*ARRAYS, "meta"}:  # of earlier versions, or a damaged name
    raise OSError(f"meta has checksums of {', '.join(checksums)}")
  saved = checksums.pop("meta", None)
  if saved is not None and saved != (found := _checksum(meta)):
    raise OSError(f"meta has the checksum {found}, but {saved} when it was saved")
  if meta.get("step", step) != step:
    raise OSError(f"it was saved as step {meta['step']}")
  return meta


def read_score(directory: epath.Path, step: int, metric: str) -> float | None:
  """The metric that was saved with a checkpoint, or None. Raises an exception if meta is not what was saved."""
  meta = read(directory, step)
  if "metrics" in meta:
    return as_score(meta["metrics"].get(metric))
  # Earlier versions had it in orbax's file alone.
  return as_score(json.loads((directory / str(step) / "metrics" / "metrics").read_text()).get(metric))


def as_score(value: float | None) -> float | None:
  """A number that can be compared with others, or None."""
  return None if value is None or math.isnan(value) else float(value)


def _checksum(meta):
  return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
