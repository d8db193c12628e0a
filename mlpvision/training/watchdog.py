"""Ends a process that no longer makes progress, because another process is dead or hangs."""

import faulthandler
import os
import sys
import threading
import time
import traceback
from typing import Self

import jax

from mlpvision.errors import UserError


class Watchdog:
  """A context that ends the process if `beat` is not called for `seconds`.

  A collective that waits for another process cannot be interrupted, except by ending the process. A thread does this,
  because it runs while the main thread waits for the device.
  """

  def __init__(self, seconds: float | None) -> None:
    """seconds: None turns the watchdog off."""
    self._seconds, self._what = seconds, ""
    self._last, self._done = time.monotonic(), threading.Event()

  def beat(self, what: str) -> None:
    """Reports progress; `what` names it in the error message, such as "step 12"."""
    self._what, self._last = what, time.monotonic()

  def __enter__(self) -> Self:
    self.beat("the start")
    if self._seconds is not None:
      threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
    return self

  def __exit__(self, exception_type: type[BaseException] | None, exception: BaseException | None, _: object) -> None:
    self._done.set()
    if not isinstance(exception, Exception) or jax.process_count() == 1:
      return
    # A normal exit would wait for the other processes, which may be dead or waiting for this one.
    if isinstance(exception, jax.errors.JaxRuntimeError):  # raised if a peer dies during a collective
      first_line = (str(exception).splitlines() or [""])[0]
      _exit(f"a step failed after {self._what}: {first_line:.200}. Another process is probably dead.")
    if not isinstance(exception, UserError):
      traceback.print_exception(exception)
    _exit(str(exception))

  def _watch(self):
    while not self._done.wait(min(1.0, self._seconds / 4)):
      if time.monotonic() - self._last > self._seconds:
        faulthandler.dump_traceback()
        others = " Another process is probably dead or hangs." if jax.process_count() > 1 else ""
        what = f"no progress for {self._seconds:.0f} s (hang_timeout) after {self._what}"
        _exit(f"{what}; stack traces are above.{others}")


def _exit(what):
  where = f"process {jax.process_index()} of {jax.process_count()}"
  print(f"error: {where}: {what}\nThe same command resumes from the newest checkpoint.", file=sys.stderr, flush=True)
  os._exit(os.EX_TEMPFAIL)  # 75 of sysexits.h, so that a launcher restarts the process
