"""What a process and all its descendants take: CPU seconds and memory. From /proc where there is one."""

import os
import pathlib
import resource
import time

_PROC = pathlib.Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")

# Seconds without work after which a loader's queues count as full.
_REST = 0.5

# Without /proc, children count only once they have ended, and memory is not known.
COMPLETE = (_PROC / "self" / "smaps_rollup").exists()


def cpu_seconds(pid: int) -> float:
  """CPU seconds, user and system, of the process, its living descendants and their ended children."""
  if not COMPLETE:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))
  ticks = 0
  for process in _tree(pid):
    fields = _stat(process)
    ticks += sum(map(int, fields[11:15])) if fields else 0  # utime, stime, cutime, cstime
  return ticks / _TICKS


def memory_bytes(pid: int) -> int | None:
  """Proportional set size of the process and its descendants: what is shared counts once. None without /proc."""
  if not COMPLETE:
    return None
  total = 0
  for process in _tree(pid):
    try:
      lines = (_PROC / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended meanwhile
      continue
    total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
  return total


def settle() -> tuple[float, float]:
  """Waits until this process and its workers rest; returns their CPU seconds, and since when."""
  cpu, since = cpu_seconds(os.getpid()), time.perf_counter()
  while time.perf_counter() < since + _REST:
    time.sleep(_REST / 10)
    now = cpu_seconds(os.getpid())
    if now > cpu + _REST / 20:
      cpu, since = now, time.perf_counter()
  return cpu, since


def _tree(pid):
  """The process and its living descendants."""
  children = {}
  for entry in _PROC.iterdir():
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
  """The fields of /proc/PID/stat from the state on, or None."""
  try:
    text = (_PROC / str(pid) / "stat").read_text()
  except OSError:
    return None
  return text.rpartition(")")[2].split()  # the name before it may hold anything
