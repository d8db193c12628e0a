"""The progress lines of a run and of many images, which are updated in place on a terminal, and other output."""

from collections.abc import Iterator, Sequence
import contextlib
import shutil
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


class Count:
  """Counts images that are worked on, on stderr; says nothing if they are few."""

  _MANY = 32  # images
  _SECONDS = (0.5, 20.0)  # between lines: on a terminal, where a line replaces the previous one, and in a file

  def __init__(self, total: int | None = None, stream: TextIO | None = None) -> None:
    """total: None if nobody knows it; stream: where to print, default sys.stderr."""
    self._total, self._stream, self._count = total, stream or sys.stderr, 0
    self._in_place, self._line_open = self._stream.isatty(), False
    self._started = self._last = time.perf_counter()

  def add(self, count: int = 1) -> None:
    """Counts images, and prints a line from time to time."""
    self._count += count
    now = time.perf_counter()
    if self._count >= self._MANY and now - self._last >= self._SECONDS[not self._in_place]:
      self._last = now
      self._write(self._text(now), "" if self._in_place else "\n")

  def clear(self) -> None:
    """Takes the line away, so that other output can be printed in its place."""
    if self._line_open:
      self._write("", "")
      self._line_open = False

  def close(self) -> None:
    """Prints the last line, if there were many images."""
    self.clear()
    if self._count > self._MANY:
      seconds = time.perf_counter() - self._started
      self._write(f"{self._count:,} images in {clock(seconds)}, {self._count / seconds:,.1f} images/s", "\n")

  def _text(self, now):
    rate = self._count / (now - self._started)
    if self._total is None:
      return fitted([f"{self._count:,} images", f"{rate:,.1f} images/s"], self._in_place)
    left = clock((self._total - self._count) / rate)
    return fitted(
      [f"{self._count:,} of {self._total:,} images", f"ETA {left}", f"{rate:,.1f} images/s"], self._in_place
    )

  def _write(self, text, end):
    self._stream.write(f"\r\x1b[K{text}{end}" if self._in_place else f"{text}{end}")
    self._stream.flush()
    self._line_open = self._in_place and not end


def fitted(parts: Sequence[str], in_place: bool = True) -> str:
  """Parts of a progress line in order of importance, as many as the terminal's width has room for; all in a file."""
  if not in_place:
    return "  ".join(parts)
  width, count = shutil.get_terminal_size().columns - 1, len(parts)  # in the last column, terminals break the line
  while count > 1 and len("  ".join(parts[:count])) > width:
    count -= 1
  return "  ".join(parts[:count])[:width]


def clock(seconds: float) -> str:
  """Seconds as h:mm:ss, or m:ss under an hour."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
