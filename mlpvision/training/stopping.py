"""Stopping on signals, and saving by time. SIGINT (Ctrl-C), SIGTERM and SIGHUP stop a run after the current step."""

import contextlib
import os
import signal
import threading
import time
from typing import Self

import jax
from jax.experimental import multihost_utils
import numpy as np

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Launchers often send a signal twice, to the process and to its group.
_SECONDS_UNTIL_AGAIN = 1.0


class StopRequest:
  """A context in which the signals ask for a stop instead of ending the process.

  All processes of a run stop after the same step, whichever of them got a signal: JAX's preemption service, which
  handles SIGTERM, makes them agree, and other signals are forwarded to it. The first signal never raises an exception,
  which JAX could catch. A second one, more than a second later, ends the process at once.
  """

  def __init__(self, of_command: str = "") -> None:
    """of_command: the command that resumes the run, if the process does nothing but this run; otherwise "".

    Signals then also count while Python waits for a compiler or a device. Until `running` is set, the process ends at
    once, with code 0, because nothing can be lost; once several are connected (`is_alone` is False), they first agree
    on a step.
    """
    self.signal_name, self.running, self.is_alone = None, False, not jax.distributed.is_initialized()
    self._of_command, self._when, self._previous = of_command, 0.0, contextlib.ExitStack()

  def __enter__(self) -> Self:
    if threading.current_thread() is not threading.main_thread():
      return self  # where Python cannot handle signals
    if self._of_command:
      reader, writer = os.pipe()
      os.set_blocking(writer, False)
      self._previous.callback(os.close, writer)
      self._previous.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer, warn_on_full_buffer=False))
      threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True).start()
    for number in _SIGNALS:
      ignored = number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN  # by nohup
      of_jax = number == signal.SIGTERM and not self.is_alone
      if not ignored and not of_jax:
        self._previous.callback(signal.signal, number, signal.signal(number, self._handle))
    return self

  def __exit__(self, *_: object) -> None:
    self._previous.close()

  def is_due(self, step: int) -> bool:
    """Whether to stop after this step, on all processes. Every process must call it at every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self.signal_name is not None

  def _handle(self, number, frame):
    del frame
    if not self._of_command:
      self._request(number)

  def _listen(self, reader):
    # Python's C handler writes the number at once; `_handle` runs only when the main thread returns to Python.
    while number := os.read(reader, 1):
      self._request(number[0])
    os.close(reader)

  def _request(self, number):
    again = self.signal_name is not None
    if again and time.monotonic() - self._when < _SECONDS_UNTIL_AGAIN:
      return
    name, self._when = signal.Signals(number).name, time.monotonic()
    if not again:
      self.signal_name = name
      if not self.is_alone:
        _say(f"{name}: saving after a step that all processes agree on; send it again to end this one at once")
        if number != signal.SIGTERM:
          os.kill(os.getpid(), signal.SIGTERM)
      elif self.running or not self._of_command:
        _say(f"{name}: saving after this step; send it again to end the run at once")
      else:
        _say(f"{name}: stopped before the first step; to resume: {self._of_command}")
        os._exit(0)
    elif self._of_command:
      _say(f"{name}: ended")
      os._exit(128 + number)
    else:
      self._previous.close()
      raise KeyboardInterrupt


def _say(text):
  # print is not reentrant, and the signal may have interrupted one.
  with contextlib.suppress(OSError):
    os.write(2, f"\n{text}\n".encode())


class SaveClock:
  """Decides when `seconds` have passed since the last save, by the clock of process 0."""

  def __init__(self, seconds: float | None) -> None:
    """seconds: None for never."""
    self._seconds, self._last = seconds, time.monotonic()

  def is_due(self) -> bool:
    """Whether to save now. Every process must call it at the same steps."""
    if self._seconds is None:
      return False
    due = time.monotonic() - self._last >= self._seconds
    if jax.process_count() > 1:
      due = bool(multihost_utils.broadcast_one_to_all(np.array(due)))
    if due:
      self._last = time.monotonic()
    return due
