"""The progress line of a run, which is updated in place on a terminal, and other output."""

from collections.abc import Iterator
import contextlib
import sys
import time
from typing import TextIO


class Progress:
  """Measures time per step; prints the progress line, and other text above it."""

  def __init__(
    self,
    *,
    start_step: int,
    total_steps: int,
    steps_per_epoch: float,
    batch_size: int,
    quiet: bool = False,
    stream: TextIO | None = None,
  ) -> None:
    """quiet: do not print (all processes but one); stream: where to print, default sys.stdout."""
    self._total_steps, self._steps_per_epoch, self._batch_size = total_steps, steps_per_epoch, batch_size
    self._quiet, self._stream = quiet, stream or sys.stdout
    self._in_place, self._line_open = self._stream.isatty(), False
    self._step = start_step
    self.restart()

  def restart(self) -> None:
    """Restarts the clock. Call it before the first step."""
    self._started, self._waited = time.perf_counter(), 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside the context as waiting for data."""
    started = time.perf_counter()
    yield
    self._waited += time.perf_counter() - started

  def pause(self, seconds: float) -> None:
    """Excludes time that was not spent training, such as evaluation, from the rates."""
    self._started += seconds

  def report(self, step: int, loss: float) -> dict[str, float]:
    """Prints the progress since the last report; returns {"perf/images_per_second", "perf/data_wait": 0 to 1}."""
    elapsed = max(time.perf_counter() - self._started, 1e-9)
    steps = max(step - self._step, 1)
    rate, wait = steps * self._batch_size / elapsed, min(1.0, self._waited / elapsed)
    left = clock((self._total_steps - step) * elapsed / steps)
    width = len(str(self._total_steps))
    text = (
      f"step {step:{width}d}/{self._total_steps}  epoch {step / self._steps_per_epoch:.2f}  loss {loss:.4f}"
      f"  {rate:,.0f} images/s  data wait {wait:.0%}  ETA {left}"
    )
    self._write(f"\r\x1b[K{text}" if self._in_place else f"{text}\n")
    self._line_open = self._in_place
    self._step = step
    self.restart()
    return {"perf/images_per_second": rate, "perf/data_wait": wait}

  def say(self, text: str) -> None:
    """Prints text on new lines."""
    self._write(f"\n{text}\n" if self._line_open else f"{text}\n")
    self._line_open = False

  def _write(self, text):
    if not self._quiet:
      self._stream.write(text)
      self._stream.flush()


def clock(seconds: float) -> str:
  """Seconds as h:mm:ss, or m:ss under an hour."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
