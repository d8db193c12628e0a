"""Writes metrics to WORKDIR/metrics.jsonl, one JSON object per line, to TensorBoard and to experiment trackers."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import os
import re
from typing import Any, Self

from absl import logging
from etils import epath

from mlpvision import workdir as workdir_lib
from mlpvision.errors import UserError
from mlpvision.reporting import events, trackers

FILE = "metrics.jsonl"
DAMAGED = f"{FILE}.damaged"
_LONGEST = 2**20  # bytes of a line; what is longer is no row


class MetricWriter:
  """Writes the scalars of a run. Only process 0 should have one. As a context, it tells trackers of an exception."""

  def __init__(
    self,
    workdir: epath.PathLike,
    start_step: int,
    writers: Sequence[str] = ("tensorboard",),
    config: Mapping[str, Any] | None = None,
  ) -> None:
    """Appends to existing metrics; those after `start_step` are dropped, because a resumed run repeats these steps.

    Damaged lines are named and moved to WORKDIR/metrics.jsonl.damaged. The file is replaced as a whole, and only if a
    line must leave it. Raises UserError if it cannot be read or written, or a tracker cannot start.

    writers: names in config.reporting.writers; config: hyperparameters for trackers, as from `config.to_json`.
    """
    self._path, self._damaged = _path(workdir), epath.Path(workdir) / DAMAGED
    with workdir_lib.readable_errors(self._path):
      last_step = self._keep_until(start_step)
      # Object stores cannot append: the whole file is written each time.
      self._rows = [row for _, _, row in _lines(self._path)] if workdir_lib.is_remote(workdir) else None
      self._append()
    self._trackers = trackers.open_chosen(writers, workdir, config or {}, last_step)
    with self._readable_events():
      self._tensorboard = events.writer(workdir) if "tensorboard" in writers else None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    if kind is not None:
      self._close_trackers("failed" if issubclass(kind, Exception) else "stopped")

  def _keep_until(self, start_step):
    """Drops the rows after start_step, and damaged lines; returns the last step that there was."""
    damaged, is_to_change, last_step = {}, False, 0
    for number, line, row in _lines(self._path):
      if row is None:
        damaged[number] = line
      else:
        last_step = max(last_step, row["step"])
      is_to_change |= row is None or row["step"] > start_step or not line.endswith(b"\n")
    if damaged:
      with workdir_lib.readable_errors(self._damaged), self._damaged.open("ab") as file:
        file.writelines(line.rstrip(b"\n") + b"\n" for line in damaged.values())
      numbers = ", ".join(map(str, [*damaged][:10])) + (" ..." if damaged.keys() - [*damaged][:10] else "")
      logging.error("%s IS DAMAGED: %d lines are moved to %s: %s", self._path, len(damaged), self._damaged, numbers)
    if is_to_change:
      kept = (line for _, line, row in _lines(self._path) if row is not None and row["step"] <= start_step)
      workdir_lib.replace(self._path, (line.rstrip(b"\n") + b"\n" for line in kept))
    return last_step

  def write(self, step: int, **scalars: float) -> None:
    """Appends the line {"step": step, ...}; TensorBoard and trackers group names with a slash, such as "val/top1".

    Raises UserError if it cannot be written, for example because the disk is full.
    """
    with workdir_lib.readable_errors(self._path):
      self._append({"step": step, **scalars})
    if self._tensorboard:
      with self._readable_events():
        self._tensorboard.write_scalars(step, scalars)
    for tracker in self._trackers:
      tracker.write_scalars(step, scalars)

  def write_picture(self, step: int, name: str, path: epath.PathLike) -> None:
    """Hands a PNG to the trackers."""
    for tracker in self._trackers:
      tracker.write_picture(step, name, path)

  def _append(self, *rows):
    if self._rows is not None:
      self._rows += rows
      workdir_lib.replace(self._path, (_line(row) for row in self._rows))
      return
    with open(self._path, "ab", buffering=0) as file:
      size = file.tell()
      try:
        for row in rows:
          line = _line(row)
          while line:
            line = line[file.write(line) :]
      except OSError:
        file.truncate(size)  # no part of a line remains where the disk is full
        raise

  def close(self, *, finished: bool = True) -> None:
    """Flushes the TensorBoard events, and ends the trackers' runs. Raises UserError if events cannot be written.

    finished: False if the run was stopped and can be resumed.
    """
    if self._tensorboard:
      with self._readable_events():
        self._tensorboard.close()
    self._close_trackers("finished" if finished else "stopped")

  def _close_trackers(self, outcome):
    for tracker in self._trackers:
      tracker.close(outcome)
    self._trackers = []

  @contextlib.contextmanager
  def _readable_events(self):
    try:
      yield
    except Exception as error:
      if not isinstance(error, OSError) and not type(error).__module__.startswith("tensorflow"):  # its own exceptions
        raise
      with workdir_lib.readable_errors(f"TensorBoard's events in {self._damaged.parent}"):
        raise OSError(re.sub(r"\{\{.*?\}\} ", "", str(error))) from error  # without the operation's address


def read(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """The rows of WORKDIR/metrics.jsonl as dicts, without damaged lines. Raises UserError if it cannot be read."""
  try:
    return [row for _, _, row in _lines(_path(workdir)) if row is not None]
  except OSError as error:
    raise UserError(f"cannot read {_path(workdir)}: {workdir_lib.reason(error)}") from error


def _path(workdir):
  path = epath.Path(workdir) / FILE
  # Behind a link: the file that it names is replaced, not the link.
  return path if workdir_lib.is_remote(workdir) else epath.Path(os.path.realpath(path))


def _line(row):
  return f"{json.dumps(row)}\n".encode()


def _lines(path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
  """(number from 1, bytes, row or None if it is damaged) of each line."""
  if not path.exists():
    return
  if not workdir_lib.is_file(path):
    raise UserError(f"{path} is not a file: move it away")
  with path.open("rb") as file:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=1):
      yield number, line, _row(line)


def _row(line):
  """The row in a line; None if it is not a flat dict of numbers with a step."""
  try:
    row = json.loads(line)
    step = row["step"]
    numbers = all(isinstance(value, int | float) and float(value) is not None for value in row.values())
    is_row = numbers and type(step) is int and step >= 0 and all(name.isprintable() for name in row)
  except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
    return None
  return row if is_row else None
