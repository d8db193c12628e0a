"""Ends a process that no longer makes progress, because another process is dead or hangs."""

from collections.abc import Iterator
import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
from typing import Self

import jax

from mlpvision import heartbeat
from mlpvision.errors import UserError

_START, _MIN_SECONDS_AT_START = "the start", 300.0
_COMPUTING = 0.2  # of one core


class Watchdog:
  """A context that ends the process if there is no `heartbeat.beat` for `seconds`.

  A collective that waits for another process cannot be interrupted, except by ending the process. A thread does this,
  because it runs while the main thread waits for the device. A single process waits for no other one: there, computing
  counts as progress too, such as compiling an evaluation. Time during which the process is suspended does not count.
  """

  def __init__(self, seconds: float | None) -> None:
    """seconds: None turns the watchdog off."""
    self._seconds, self._paused, self._done = seconds, False, threading.Event()

  def __enter__(self) -> Self:
    heartbeat.beat(_START)
    if self._seconds is not None:
      threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
    return self

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """A context for work that waits for no other process and may take long, such as compiling."""
    self._paused = True
    yield
    self._paused = False

  def __exit__(self, exception_type: type[BaseException] | None, exception: BaseException | None, _: object) -> None:
    self._done.set()
    if not isinstance(exception, Exception) or jax.process_count() == 1:
      return
    # A normal exit would wait for the other processes, which may be dead or waiting for this one.
    if isinstance(exception, jax.errors.JaxRuntimeError):  # raised if a peer dies during a collective
      first_line = (str(exception).splitlines() or [""])[0]
      _exit(f"a step failed after {heartbeat.what}: {first_line:.200}. Another process is probably dead.")
    if not isinstance(exception, UserError):
      traceback.print_exception(exception)
    elif heartbeat.what == _START:
      _exit(str(exception), 2)
    _exit(str(exception))

  def _watch(self):
    interval = min(1.0, self._seconds / 4)
    idle, seen, last, computed = 0.0, heartbeat.count, time.monotonic(), time.process_time()
    is_alone = not jax.distributed.is_initialized()
    while not self._done.wait(interval):
      now, cpu = time.monotonic(), time.process_time()
      computes = is_alone and cpu - computed > _COMPUTING * (now - last)
      if heartbeat.count != seen or computes or self._paused:
        idle, seen = 0.0, heartbeat.count
      else:
        idle += min(now - last, 2 * interval)  # more than this only if the process was suspended
      last, computed = now, cpu
      # Until the first step, functions are compiled between collectives.
      limit = max(self._seconds, _MIN_SECONDS_AT_START) if heartbeat.what == _START else self._seconds
      if idle > limit:
        faulthandler.dump_traceback()
        others = "" if is_alone else " Another process is probably dead or hangs."
        _exit(f"no progress for {limit:.0f} s (hang_timeout) after {heartbeat.what}; stack traces are above.{others}")


def _exit(what, code=os.EX_TEMPFAIL):
  """Ends the process; 75 of sysexits.h means that a launcher should restart it."""
  where = f"process {jax.process_index()} of {jax.process_count()}"
  resumes = "\nThe same command resumes from the newest checkpoint." if code == os.EX_TEMPFAIL else ""
  with contextlib.suppress(OSError):
    print(f"error: {where}: {what}{resumes}", file=sys.stderr, flush=True)
  os._exit(code)
