"""Profiles some steps, for TensorBoard's profile plugin and xprof."""

import contextlib
from typing import Any

from etils import epath
import jax

FOLDER = "profile"


class Profile(contextlib.AbstractContextManager):
  """A context that traces some steps of a run into WORKDIR/profile. Every process writes its own trace."""

  def __init__(self, steps: tuple[int, int] | None, workdir: epath.PathLike) -> None:
    """steps: (first, last) to trace, counted from 1; None for no trace."""
    self._steps, self._directory, self._is_tracing = steps, str(epath.Path(workdir) / FOLDER), False

  def __exit__(self, *_: object) -> None:
    self._stop()

  def step(self, number: int) -> contextlib.AbstractContextManager:
    """A context for the call of a step; starts the trace at the first one."""
    if self._steps and self._steps[0] <= number <= self._steps[1] and not self._is_tracing:
      jax.profiler.start_trace(self._directory)
      self._is_tracing = True
    return jax.profiler.StepTraceAnnotation("train", step_num=number)

  def end_step(self, number: int, metrics: Any) -> None:
    """Call it after a step. After the last one, it waits for the device and ends the trace."""
    if self._is_tracing and number >= self._steps[1]:
      jax.block_until_ready(metrics)
      self._stop()

  def _stop(self):
    if self._is_tracing:
      jax.profiler.stop_trace()
      self._is_tracing = False
