"""Loader processes under signals, and when they or their parent are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from conftest import REPO
import grain
import pytest

from mlpvision.data import workers
from mlpvision.errors import UserError


def _slowly(number):
  time.sleep(0.01)
  return number


def test_signals_pass_by_and_a_killed_one_is_named():
  dataset = grain.MapDataset.range(1000).map(_slowly)
  items = workers.iterate(dataset, 2, 2)
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
import os, sys, time, grain
from mlpvision.data import workers
def load(i):
  if i == 4: os.write(2, b"%d\\n" % os.getpid())
  return i
if __name__ == "__main__":
  items = workers.iterate(grain.MapDataset.range(10**6).map(load), 1, 1)
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
