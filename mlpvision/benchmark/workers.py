"""Programs side by side: each contender in a process of its own, one call at a time, in turns."""

from collections.abc import Callable
import contextlib
import multiprocessing
import time
import traceback
from typing import Any

from mlpvision.errors import UserError

# A turn is one call, or as many as fit into this many seconds.
_TURN = 0.3


class Worker:
  """A process that holds calls ready.

  make(*arguments) runs there, and returns (facts, {name: call}): what the parent should know, and functions without
  arguments that return when their work is done. Each call has been made twice before the constructor returns.

  Attributes:
    facts: from make.
    cpu, wall: {name: seconds of the fastest call so far}; cpu counts all threads of the process.
  """

  def __init__(self, name: str, make: Callable[..., Any], *arguments: Any) -> None:
    self.name, self.cpu, self.wall = name, {}, {}
    context = multiprocessing.get_context("spawn")
    self._connection, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, make, arguments))
    self._process.start()
    theirs.close()
    try:
      self.facts, self.calls = self._receive()
    except BaseException:
      self.close()
      raise

  def turn(self, call: str) -> None:
    """Makes one of the calls, for a moment, and remembers the fastest."""
    self._connection.send(call)
    cpu, wall = self._receive()
    self.cpu[call] = min(cpu, self.cpu.get(call, cpu))
    self.wall[call] = min(wall, self.wall.get(call, wall))

  def close(self) -> None:
    """Ends the process."""
    with contextlib.suppress(BrokenPipeError):
      self._connection.send(None)
    self._process.join(20)
    self._process.kill()

  def _receive(self):
    try:
      answer = self._connection.recv()
    except EOFError:
      self._process.join(20)
      raise UserError(f"{self.name} ended without a word (exit code {self._process.exitcode})") from None
    if isinstance(answer, UserError):
      raise answer
    if isinstance(answer, str):
      raise UserError(f"{self.name} failed:\n{answer}")
    return answer


def _serve(connection, make, arguments):
  try:
    facts, calls = make(*arguments)
    for call in calls.values():
      call()
      call()
    connection.send((facts, tuple(calls)))
    while (name := connection.recv()) is not None:
      connection.send(_time(calls[name]))
  except UserError as error:
    connection.send(error)
  except Exception:
    connection.send(traceback.format_exc())


def _time(call):
  """(CPU seconds, seconds) of the fastest calls."""
  cpu, wall, started = [], [], time.perf_counter()
  while not wall or time.perf_counter() - started < _TURN:
    cpu_before, wall_before = time.process_time(), time.perf_counter()
    call()
    cpu.append(time.process_time() - cpu_before)
    wall.append(time.perf_counter() - wall_before)
  return min(cpu), min(wall)
