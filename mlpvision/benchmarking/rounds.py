"""Loaders side by side: each in a process of its own, one at a time, in turns, counted with all its descendants."""

import contextlib
import dataclasses
import multiprocessing
import os
import time
import traceback

from mlpvision.benchmarking import usage
from mlpvision.errors import UserError


@dataclasses.dataclass
class Round:
  """One loader's turn."""

  images: int
  wall: float
  cpu: float
  memory: int | None  # bytes, the highest seen

  @property
  def per_cpu_second(self):
    return self.images / self.cpu

  @property
  def per_second(self):
    return self.images / self.wall


class Contestant:
  """A loader in its own process.

  make(*arguments) is called there; it returns an iterator of uint8 arrays [b, size, size, 3].
  """

  def __init__(self, name, make, *arguments):
    self.name, self.rounds = name, []
    context = multiprocessing.get_context("spawn")
    self._connection, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, make, arguments))
    self._process.start()
    theirs.close()
    self._receive()

  def run(self, seconds):
    """Takes batches for about this long, after half as long again to come up to speed."""
    self._connection.send(seconds)
    images, wall, cpu, memory = self._receive()
    self.rounds.append(Round(images, wall, cpu, memory))

  def close(self):
    """Ends the process and its workers."""
    with contextlib.suppress(BrokenPipeError):
      self._connection.send(None)
    self._process.join(20)
    self._process.kill()

  def _receive(self):
    memory = 0
    while not self._connection.poll(0.2):
      memory = max(memory, usage.memory_bytes(self._process.pid) or 0)
    try:
      answer = self._connection.recv()
    except EOFError:
      raise UserError(f"the loader {self.name} ended without a word (exit code {self._process.exitcode})") from None
    if isinstance(answer, str):
      raise UserError(f"the loader {self.name} failed:\n{answer}")
    return answer and (*answer, memory or None)


def _serve(connection, make, arguments):
  try:
    batches = make(*arguments)
    next(batches)
    connection.send(())
    while (seconds := connection.recv()) is not None:
      # What stands ready in queues has been paid for before; it goes first.
      _take(batches, seconds / 2)
      before, start = usage.cpu_seconds(os.getpid()), time.perf_counter()
      images = _take(batches, seconds)
      wall = time.perf_counter() - start
      connection.send((images, wall, usage.cpu_seconds(os.getpid()) - before))
    with contextlib.suppress(AttributeError):
      batches.close()
  except Exception:
    connection.send(traceback.format_exc())


def _take(batches, seconds):
  end, images = time.perf_counter() + seconds, 0
  while time.perf_counter() < end:
    images += len(next(batches))
  return images
