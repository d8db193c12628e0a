"""CPU seconds of this process with all its descendants, from /proc where it exists."""

import os
import pathlib
import resource
import time

PROC = pathlib.Path("/proc")
# Without /proc, children count only once they have ended, and memory is unknown.
COMPLETE = (PROC / "self" / "smaps_rollup").exists()

_TICKS = os.sysconf("SC_CLK_TCK")
_REST = 0.5  # seconds without work after which a loader's queues are assumed to be full


def cpu_seconds() -> float:
  """User and system CPU seconds of this process, its running descendants and their ended children."""
  if not COMPLETE:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))
  ticks = 0
  for process in tree(os.getpid()):
    fields = _stat(process)
    ticks += sum(map(int, fields[11:15])) if fields else 0  # utime, stime, cutime, cstime
  return ticks / _TICKS


def settle() -> tuple[float, float]:
  """Waits until this process and its workers are idle; returns their CPU seconds, and since when they have been."""
  cpu, since = cpu_seconds(), time.perf_counter()
  while time.perf_counter() < since + _REST:
    time.sleep(_REST / 10)
    now = cpu_seconds()
    if now > cpu + _REST / 20:
      cpu, since = now, time.perf_counter()
  return cpu, since


def tree(pid: int) -> list[int]:
  """The process and its running descendants."""
  children = {}
  for entry in PROC.iterdir():
    fields = _stat(entry.name) if entry.name.isdigit() else None
    if fields:
      children.setdefault(int(fields[1]), []).append(int(entry.name))
  found, todo = [], [pid]
  while todo:
    process = todo.pop()
    found.append(process)
    todo += children.get(process, [])
  return found


def _stat(pid):
  """The fields of /proc/PID/stat from the state on, or None if the process has ended."""
  try:
    text = (PROC / str(pid) / "stat").read_text()
  except OSError:
    return None
  return text.rpartition(")")[2].split()  # the name before it may contain anything
