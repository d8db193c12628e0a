"""Runs a contender in its own process, so that contenders can be measured in turns."""

from collections.abc import Callable, Iterator
import contextlib
import multiprocessing
import traceback
from typing import Any

from mlpvision.benchmark import usage
from mlpvision.errors import UserError


@contextlib.contextmanager
def start(name: str, make: Callable[..., Any], *arguments: Any) -> Iterator["Contender"]:
  """A `Contender` whose process calls make(*arguments) -> (facts, turn); arguments and results are pickled.

  Args:
    name: for messages.
    make: returns facts for the parent, and the function that does a turn.
    arguments: its arguments.

  Raises:
    UserError: the process has failed or died; here, or in a turn.
  """
  context = multiprocessing.get_context("spawn")
  connection, theirs = context.Pipe()
  process = context.Process(target=_serve, args=(theirs, make, arguments))
  process.start()
  theirs.close()
  try:
    yield Contender(name, process, connection)
  finally:
    with contextlib.suppress(BrokenPipeError):
      connection.send(None)
    process.join(20)
    process.kill()


class Contender:
  """A process that does one turn at a time; `facts` is what its `make` has returned first."""

  def __init__(self, name: str, process: Any, connection: Any) -> None:
    self._name, self._process, self._connection = name, process, connection
    self.facts = self._receive()

  def turn(self, argument: Any) -> Any:
    """The result of turn(argument) in the process."""
    self._connection.send((argument,))
    return self._receive()

  def turn_and_memory(self, argument: Any) -> tuple[Any, int | None]:
    """The same, and the peak memory of the process and its descendants during the turn, in bytes; None: unknown."""
    self._connection.send((argument,))
    memory = 0
    while not self._connection.poll(0.2):
      memory = max(memory, memory_bytes(self._process.pid) or 0)
    return self._receive(), memory or None

  def _receive(self):
    try:
      failure, answer = self._connection.recv()
    except EOFError:
      self._process.join(20)
      raise UserError(f"{self._name} died without a message (exit code {self._process.exitcode})") from None
    if failure:
      raise UserError(failure)
    return answer


def memory_bytes(pid: int) -> int | None:
  """Proportional set size of a process and its descendants, in which shared memory counts once. None without /proc."""
  if not usage.COMPLETE:
    return None
  total = 0
  for process in usage.tree(pid):
    try:
      lines = (usage.PROC / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended in the meantime
      continue
    total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
  return total


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
