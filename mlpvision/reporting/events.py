"""TensorBoard's event files."""

from collections.abc import Mapping
import os
import socket
import time

from etils import epath

from mlpvision import workdir as workdir_lib


def writer(workdir: epath.PathLike) -> "Events":
  """A writer of scalars: `write_scalars(step, {name: value})` and `close()`.

  In a bucket it is clu's, which writes through TensorFlow. Locally it is `Events`: TensorFlow takes seconds to import,
  a third of the processor time of a short run.
  """
  if workdir_lib.is_remote(workdir):
    from clu import metric_writers

    return metric_writers.SummaryWriter(os.fspath(workdir))
  return Events(workdir)


class Events:
  """A new event file in a local directory, in TensorBoard's own format. A row is on disk when `write_scalars` returns.

  Raises OSError if it cannot be written.
  """

  def __init__(self, workdir: epath.PathLike) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer import record_writer  # without TensorFlow

    self._event, self._summary = event_pb2.Event, summary_pb2.Summary
    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
    self._file = open(epath.Path(workdir) / name, "wb", buffering=0)
    self._records = record_writer.RecordWriter(self)
    self._add(file_version="brain.Event:2")

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes one event."""
    values = [self._summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
    self._add(step=step, summary=self._summary(value=values))

  def write(self, data: bytes) -> None:
    """For RecordWriter: a record at once, or nothing of it."""
    size = self._file.tell()
    try:
      while data:
        data = data[self._file.write(data) :]
    except OSError:
      self._file.truncate(size)  # no part of a record remains where the disk is full
      raise

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def _add(self, **fields):
    self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
