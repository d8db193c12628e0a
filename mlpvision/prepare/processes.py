"""Work that several processes share. They end with the process that started them, however it ends."""

from collections.abc import Callable, Iterable
import concurrent.futures
from concurrent.futures import process
import multiprocessing
import os
import signal
import threading
from typing import Any

from mlpvision.errors import UserError


class Pool:
  """`count` processes, which start when there is work; one is this process. To be used as a context."""

  def __init__(self, count: int) -> None:
    # Not forked: threads of tfds's libraries may hold locks.
    context = multiprocessing.get_context("spawn")
    self._count = count
    self._executor = concurrent.futures.ProcessPoolExecutor(count, context, _start) if count > 1 else None

  def __enter__(self) -> "Pool":
    return self

  def __exit__(self, *exception: Any) -> None:
    if self._executor:
      self._executor.shutdown(cancel_futures=True)

  def run(self, function: Callable[..., Any], tasks: Iterable[tuple]) -> None:
    """Calls function(*task) for all tasks, in any order.

    Tasks are taken as processes become free, one ahead, so that not many are in memory.

    Raises:
      UserError: a process was killed. What a call raises is raised as it is.
    """
    if not self._executor:
      for task in tasks:
        function(*task)
      return
    running = set()
    try:
      for task in tasks:
        running.add(self._executor.submit(function, *task))
        if len(running) > self._count:
          running = _wait(running, concurrent.futures.FIRST_COMPLETED)
      _wait(running, concurrent.futures.FIRST_EXCEPTION)
    except process.BrokenProcessPool as error:
      raise UserError(
        "a process was killed, perhaps because memory ran out. The same command continues; choose fewer with"
        " --processes"
      ) from error


def _wait(running, until):
  done, running = concurrent.futures.wait(running, return_when=until)
  for future in done:
    future.result()
  return running


def _start():
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the main process decides
  threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent):
  parent.join()
  os._exit(1)
