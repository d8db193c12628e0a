"""Reading ahead: threads that do nothing but read, so that many slow reads can wait at the same time."""

import collections
import concurrent.futures
import threading
from typing import Any


class Ahead:
  """A source that reads examples before they are asked for: those that it has been told to expect.

  What it returns does not depend on what is expected, and an error of reading is raised where the example is taken.
  """

  def __init__(self, source: Any, threads: int) -> None:
    """source: source[index] is an example; threads: reads in flight. 0 reads nothing ahead, for fast storage."""
    self._source, self.threads = source, threads
    self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="read") if threads else None
    self._lock, self._expected = threading.Lock(), {}

  def __reduce__(self) -> tuple[Any, ...]:
    return Ahead, (self._source, self.threads)

  def expect(self, index: int) -> None:
    """Reads an example that will be taken; call it in the order of taking, as often as it will be taken."""
    if self._pool:
      with self._lock:
        found = self._expected.setdefault(index, collections.deque())
        found.append(self._pool.submit(self._source.__getitem__, index))

  def __getitem__(self, index: int) -> Any:
    with self._lock:
      found = self._expected.get(index)
      read = found.popleft() if found else None
      if found is not None and not found:
        del self._expected[index]
    return self._source[index] if read is None else read.result()

  def close(self) -> None:
    """Forgets what is expected; reads in flight end by themselves."""
    if self._pool:
      self._pool.shutdown(wait=False, cancel_futures=True)
