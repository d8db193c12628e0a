"""What is compared, each in a process of its own, so that one can be measured at a time, in turns."""

from collections.abc import Callable, Iterator
import contextlib
import multiprocessing
import os
import time
import traceback
from typing import Any

from mlpvision.benchmark import usage
from mlpvision.errors import UserError


class Contender:
  """A process that does one turn at a time.

  make(*arguments) runs there and returns (facts, turn): what the parent should know, and a function that makes a turn
  of whatever `turn` is called with, and returns what it measured. All of it is pickled.

  Attributes:
    facts: from make.
  """

  def __init__(self, name: str, make: Callable[..., Any], *arguments: Any) -> None:
    self.name = name
    context = multiprocessing.get_context("spawn")
    self._connection, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, make, arguments))
    self._process.start()
    theirs.close()
    try:
      self.facts = self._receive()
    except BaseException:
      self.close()
      raise

  def turn(self, argument: Any) -> Any:
    """What the process measured.

    Raises:
      UserError: it has failed or died.
    """
    self._connection.send((argument,))
    return self._receive()

  def turn_and_memory(self, argument: Any) -> tuple[Any, int | None]:
    """The same, and the most bytes meanwhile of the process and its descendants; None where that is not known."""
    self._connection.send((argument,))
    memory = 0
    while not self._connection.poll(0.2):
      memory = max(memory, usage.memory_bytes(self._process.pid) or 0)
    return self._receive(), memory or None

  def close(self) -> None:
    """Ends the process and its workers."""
    with contextlib.suppress(BrokenPipeError):
      self._connection.send(None)
    self._process.join(20)
    self._process.kill()

  def _receive(self):
    try:
      failure, answer = self._connection.recv()
    except EOFError:
      self._process.join(20)
      raise UserError(f"{self.name} ended without a word (exit code {self._process.exitcode})") from None
    if failure:
      raise UserError(failure)
    return answer


def serve_batches(make: Callable[..., Iterator[Any]], *arguments: Any) -> tuple[None, Callable[[float], tuple]]:
  """A loader for a `Contender`; make(*arguments) gives its batches, uint8 [b, size, size, 3].

  A turn takes batches for some seconds, and lets the loader fill its queues again: (images, seconds, CPU seconds).
  """
  batches = make(*arguments)
  next(batches)
  usage.settle()

  def turn(seconds):
    # From full queues to full queues, so that what was made is what was taken.
    before, start = usage.cpu_seconds(os.getpid()), time.perf_counter()
    images = 0
    while time.perf_counter() < start + seconds:
      images += len(next(batches))
    after, end = usage.settle()
    return images, end - start, after - before

  return None, turn


def _serve(connection, make, arguments):
  try:
    facts, turn = make(*arguments)
    connection.send(("", facts))
    while (asked := connection.recv()) is not None:
      connection.send(("", turn(*asked)))
  except UserError as error:
    connection.send((str(error), None))
  except Exception:
    connection.send((traceback.format_exc(), None))
