"""Loaders side by side: each in a process of its own, one at a time, in turns, counted with all its descendants."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import multiprocessing
import os
import time
import traceback
from typing import Any

from mlpvision.benchmark import usage
from mlpvision.errors import UserError

# Seconds without work after which a loader's queues count as full.
_REST = 0.5


@dataclasses.dataclass
class Round:
  """One loader's turn."""

  images: int
  wall: float
  cpu: float
  memory: int | None  # bytes, the highest seen

  @property
  def per_cpu_second(self) -> float:
    return self.images / self.cpu

  @property
  def per_second(self) -> float:
    return self.images / self.wall


class Contestant:
  """A loader in its own process.

  make(*arguments) is called there; it returns an iterator of uint8 arrays [b, size, size, 3].
  """

  def __init__(self, name: str, make: Callable[..., Iterator[Any]], *arguments: Any) -> None:
    self.name, self.rounds = name, []
    context = multiprocessing.get_context("spawn")
    self._connection, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, make, arguments))
    self._process.start()
    theirs.close()
    self._receive()

  def run(self, seconds: float) -> None:
    """Takes batches for this long, and lets the loader fill its queues again."""
    self._connection.send(seconds)
    images, wall, cpu, memory = self._receive()
    self.rounds.append(Round(images, wall, cpu, memory))

  def close(self) -> None:
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
    with contextlib.closing(make(*arguments)) as batches:
      next(batches)
      settle()
      connection.send(())
      while (seconds := connection.recv()) is not None:
        # From full queues to full queues, so that what was made is what was taken.
        before, start = usage.cpu_seconds(os.getpid()), time.perf_counter()
        images = 0
        while time.perf_counter() < start + seconds:
          images += len(next(batches))
        after, end = settle()
        connection.send((images, end - start, after - before))
  except Exception:
    connection.send(traceback.format_exc())


def settle() -> tuple[float, float]:
  """Waits until this process and its workers rest; returns their CPU seconds, and since when."""
  cpu, since = usage.cpu_seconds(os.getpid()), time.perf_counter()
  while time.perf_counter() < since + _REST:
    time.sleep(_REST / 10)
    now = usage.cpu_seconds(os.getpid())
    if now > cpu + _REST / 20:
      cpu, since = now, time.perf_counter()
  return cpu, since
