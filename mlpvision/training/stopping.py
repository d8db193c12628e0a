"""Saving on signals and by time. Ctrl-C and SIGTERM stop after the current step; a second signal stops at once."""

import contextlib
import os
import signal
import time
from typing import Self

import jax
from jax.experimental import multihost_utils
import numpy as np


class StopRequest:
  """A context in which SIGINT and SIGTERM set `signal_name` instead of ending the process.

  With several processes, JAX's preemption service handles SIGTERM and makes all processes agree on a step; only Ctrl-C
  is caught then, and forwarded to it as SIGTERM.
  """

  def __init__(self) -> None:
    self.signal_name, self._previous = None, contextlib.ExitStack()

  def __enter__(self) -> Self:
    for number in (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else (signal.SIGINT,):
      self._previous.callback(signal.signal, number, signal.signal(number, self._handle))
    return self

  def __exit__(self, *_: object) -> None:
    self._previous.close()

  def _handle(self, number, frame):
    del frame
    self.signal_name = signal.Signals(number).name
    # print is not reentrant, and the signal may have interrupted one.
    os.write(2, f"\n{self.signal_name}: saving after this step; send it again to end the run at once\n".encode())
    self._previous.close()  # the next signal has its usual effect
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)


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
