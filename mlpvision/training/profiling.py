"""A trace of some steps, for TensorBoard's profile plugin and xprof."""

import contextlib
from typing import Any, Self

from etils import epath
import jax

FOLDER = "profile"


class Profile:
  """A context that traces the steps first to last of a run into WORKDIR/profile. Every process writes its own trace."""

  def __init__(self, steps: tuple[int, int] | None, workdir: epath.PathLike) -> None:
    """steps: (first, last), counted from 1; None for no trace."""
    self._steps, self._directory, self._is_tracing = steps, str(epath.Path(workdir) / FOLDER), False

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._stop()

  def step(self, number: int) -> contextlib.AbstractContextManager:
    """Around the call of a step; the trace begins here."""
    if self._steps and self._steps[0] <= number <= self._steps[1] and not self._is_tracing:
      jax.profiler.start_trace(self._directory)
      self._is_tracing = True
    return jax.profiler.StepTraceAnnotation("train", step_num=number)

  def end_step(self, number: int, metrics: Any) -> None:
    """After a step: the trace ends with the last one, once that is done on the device."""
    if self._is_tracing and number >= self._steps[1]:
      jax.block_until_ready(metrics)
      self._stop()

  def part(self, name: str) -> contextlib.AbstractContextManager:
    """Around a part of the loop, which the trace then shows by this name."""
    return jax.profiler.TraceAnnotation(name)

  def _stop(self):
    if self._is_tracing:
      jax.profiler.stop_trace()
      self._is_tracing = False
