"""A limit on the memory that a block of a test takes."""

from collections.abc import Iterator
import contextlib
import re


@contextlib.contextmanager
def limited(megabytes: float) -> Iterator[None]:
  """Fails if this process grows by more at any moment in the block. Linux only."""
  with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts again
  before = _peak()
  yield
  assert _peak() - before < megabytes


def _peak():
  with open("/proc/self/status") as file:
    return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) / 1024
