"""The progress lines of a run and of many images, which are updated in place on a terminal, and other output."""

from collections.abc import Iterator, Sequence
import contextlib
import shutil
import sys
import time
from typing import TextIO


class Progress:
  """Measures time per step; prints the progress line, and other text above it."""

  _SECONDS = 30.0  # without a line, after which one comes between the reports

  def __init__(
    self,
    *,
    start_step: int,
    total_steps: int,
    steps_per_epoch: float,
    batch_size: int,
    every: float | None = None,
    quiet: bool = False,
    stream: TextIO | None = None,
  ) -> None:
    """every: seconds between lines; None prints one for each report, and others if that takes long.

    quiet: do not print (all processes but one); stream: where to print, default sys.stdout.
    """
    self._every, self._shown = every, time.perf_counter()
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
    rate, wait = self._rates(step)
    if self._every is None or step == self._total_steps or self.is_late():
      self.show(step, loss)
    self._step = step
    self.restart()
    return {"perf/images_per_second": rate, "perf/data_wait": wait}

  def is_late(self) -> bool:
    """Whether it is time for a line, with `show`, whether or not a report is due."""
    seconds = self._SECONDS if self._every is None else self._every
    return not self._quiet and time.perf_counter() - self._shown >= seconds

  def show(self, step: int, loss: float) -> None:
    """Prints the progress since the last report, without being one."""
    rate, wait = self._rates(step)
    width = len(str(self._total_steps))
    parts = (
      f"step {step:{width}d}/{self._total_steps}",
      f"epoch {step / self._steps_per_epoch:.2f}",
      f"loss {loss:.4f}",
      f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s",
      f"data wait {wait:.0%}",
      f"ETA {clock((self._total_steps - step) * self._batch_size / rate)}",
    )
    text = fitted(parts, (0, 5, 2, 3, 1, 4)) if self._in_place else "  ".join(parts)
    self._write(f"\r\x1b[K{text}" if self._in_place else f"{text}\n")
    self._line_open, self._shown = self._in_place, time.perf_counter()

  def _rates(self, step):
    elapsed = max(time.perf_counter() - self._started, 1e-9)
    return max(step - self._step, 1) * self._batch_size / elapsed, min(1.0, self._waited / elapsed)

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
    parts = [f"{self._count:,} images", f"{rate:,.1f} images/s"]
    if self._total is not None:
      parts[0] = f"{self._count:,} of {self._total:,} images"
      parts.append(f"ETA {clock((self._total - self._count) / rate)}")
    importance = sorted(range(len(parts)), key=(0, 2, 1).index)
    return fitted(parts, importance) if self._in_place else "  ".join(parts)

  def _write(self, text, end):
    self._stream.write(f"\r\x1b[K{text}{end}" if self._in_place else f"{text}{end}")
    self._stream.flush()
    self._line_open = self._in_place and not end


def fitted(parts: Sequence[str], importance: Sequence[int]) -> str:
  """The parts of a line that fit the terminal's width, in their order.

  importance: indices of the parts, those to keep first; the first is cut if it alone is too wide.
  """
  width = shutil.get_terminal_size().columns - 1  # in the last column, terminals break the line
  for count in range(len(parts), 0, -1):
    text = "  ".join(parts[i] for i in sorted(importance[:count]))
    if len(text) <= width:
      return text
  return text[:width]


def clock(seconds: float) -> str:
  """Seconds as h:mm:ss, or m:ss under an hour."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
