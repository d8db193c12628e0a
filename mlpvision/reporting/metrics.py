"""Writes metrics to WORKDIR/metrics.jsonl, one JSON object per line, and to TensorBoard."""

import contextlib
import errno
import json
import os
from typing import Any

from etils import epath

FILE = "metrics.jsonl"


class MetricWriter:
  """Writes the scalars of a run. Only process 0 should have one."""

  def __init__(self, workdir: epath.PathLike, start_step: int) -> None:
    """Appends to existing metrics; those after `start_step` are dropped, because a resumed run repeats these steps."""
    from clu import metric_writers  # imports TensorFlow, which takes seconds

    self._path = epath.Path(workdir) / FILE
    self._lines = [json.dumps(row) for row in read(workdir) if row["step"] <= start_step]
    self._is_remote = "://" in str(workdir)
    self._path.write_text("".join(f"{line}\n" for line in self._lines))
    self._tensorboard = metric_writers.SummaryWriter(str(workdir))

  def write(self, step: int, **scalars: float) -> None:
    """Appends the line {"step": step, ...}; TensorBoard groups names with a slash, such as "val/top1"."""
    self._lines.append(json.dumps({"step": step, **scalars}))
    if self._is_remote:  # object stores cannot append
      self._path.write_text("".join(f"{line}\n" for line in self._lines))
    else:
      with self._path.open("a") as file:
        file.write(f"{self._lines[-1]}\n")
    try:
      self._tensorboard.write_scalars(step, scalars)
    except Exception as error:  # TensorFlow has its own exceptions
      if "No space left" not in str(error):
        raise
      raise OSError(errno.ENOSPC, "No space left on device", os.fspath(self._path.parent)) from error

  def close(self) -> None:
    """Flushes the TensorBoard events."""
    self._tensorboard.close()


def read(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """The rows of WORKDIR/metrics.jsonl as dicts; ignores a last line that is incomplete because the run was killed."""
  path = epath.Path(workdir) / FILE
  rows = []
  for line in path.read_text().splitlines() if path.exists() else []:
    with contextlib.suppress(json.JSONDecodeError):
      rows.append(json.loads(line))
  return rows
