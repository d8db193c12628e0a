"""Loader processes under signals, and when they or their parent are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from conftest import REPO
import pytest

from mlpvision.data import workers
from mlpvision.data.batches import Batches
from mlpvision.data.reads import Ahead
from mlpvision.errors import UserError


class _Slowly:
  def __getitem__(self, number):
    time.sleep(0.01)
    return {"number": number}


def _batches(rows, size=1, count=1000):
  return Batches(rows, index=lambda position: None, source=Ahead(rows, 0), size=size, count=count)


def test_signals_pass_by_and_a_killed_one_is_named():
  items = (batch["number"][0] for batch in workers.iterate(_batches(_Slowly()), 2, 2))
  assert next(items) == 0
  loaders = multiprocessing.active_children()
  assert len(loaders) == 2
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    for process in loaders:
      os.kill(process.pid, number)
  assert [next(items) for _ in range(20)] == list(range(1, 21))
  os.kill(loaders[0].pid, signal.SIGKILL)
  with pytest.raises(UserError, match=r"exit code -9, which is signal 9.*data\.workers.*The same command resumes"):
    list(items)
  assert not multiprocessing.active_children()


_PARENT = """
import os, sys, time
from mlpvision.data import batches, reads, workers
class Rows:
  def __getitem__(self, i):
    if i == 4: os.write(2, b"%d\\n" % os.getpid())
    return {"number": i}
if __name__ == "__main__":
  rows = Rows()
  items = workers.iterate(batches.Batches(rows, lambda position: None, reads.Ahead(rows, 0), 1, 10**6), 1, 1)
  for _ in range(5): next(items)
  time.sleep(60)
"""


def test_they_end_with_a_parent_that_was_killed(tmp_path):
  (tmp_path / "parent.py").write_text(_PARENT)
  process = subprocess.Popen(
    [sys.executable, tmp_path / "parent.py"], env=os.environ | {"PYTHONPATH": str(REPO)}, stderr=subprocess.PIPE
  )
  loader = int(process.stderr.readline())
  process.kill()
  process.wait()
  for _ in range(100):
    if not os.path.exists(f"/proc/{loader}"):
      break
    time.sleep(0.05)
  else:
    pytest.fail("the loader process stays")
