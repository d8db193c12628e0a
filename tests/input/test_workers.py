"""Loader processes under signals, and when they or their parent are killed."""

import gc
import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

from conftest import REPO
import jax
import numpy as np
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


class _Numbered:
  """Rows with large and small arrays that hold their position."""

  def __getitem__(self, position):
    if position == 7777:
      raise KeyError(f"row {position}")
    shape = (100, 100) if position < 5000 else (1, 2)
    return {"image": np.full(shape, position, np.int32), "parts": (np.int32(position), np.bool_(position % 2))}


def test_batches_stay_as_they_are_for_whoever_keeps_them():
  """More than shared memory has room for; on devices, too, where JAX takes them without a copy."""
  items = workers.iterate(_batches(_Numbered(), size=40, count=60), 3, 2)
  kept, put = [], []
  for number, batch in enumerate(items):
    if number % 2:
      kept.append((number, batch))
    else:
      put.append((number, jax.device_put(batch)))
  assert len(kept) == len(put) == 30
  for number, batch in kept + put:
    rows = np.arange(number * 40, (number + 1) * 40)
    np.testing.assert_array_equal(batch["image"], np.broadcast_to(rows[:, None, None], (40, 100, 100)))
    np.testing.assert_array_equal(batch["parts"][0], rows)
    np.testing.assert_array_equal(batch["parts"][1], rows % 2)
  assert batch["image"].dtype == np.int32
  assert not multiprocessing.active_children()
  del items, batch, kept, put
  gc.collect()
  assert not [file for file in pathlib.Path("/proc/self/fd").glob("*") if "memfd:mlpvision" in _target(file)]


def _target(file):
  try:
    return os.readlink(file)
  except OSError:  # closed in the meantime
    return ""


def test_a_place_in_shared_memory_is_used_again():
  items = workers.iterate(_batches(_Numbered(), size=64, count=50), 2, 2)
  places = {batch["image"].ctypes.data for batch in items}
  assert len(places) < 20


def test_no_more_processes_than_there_is_work_for():
  items = workers.iterate(_batches(_Numbered(), size=2, count=1), 8, 4)
  assert next(items)["parts"][0].tolist() == [0, 1]
  assert len(multiprocessing.active_children()) == 1
  assert not list(items)
  assert not list(workers.iterate(_batches(_Numbered(), count=0), 8, 4))


def test_errors_come_in_order_with_where_they_arose():
  items = workers.iterate(_batches(_Numbered(), size=7777), 1, 1)
  with pytest.raises(ValueError, match="different shapes"):
    next(items)
  rows = itertools.islice(range(7770, 8000), 20)
  items = workers.iterate(_batches({i: _Numbered()[p] for i, p in enumerate(rows) if p < 7775}, size=1), 2, 2)
  assert [next(items)["parts"][0][0] for _ in range(5)] == [7770, 7771, 7772, 7773, 7774]
  with pytest.raises(KeyError) as error:
    next(items)
  assert "in _load" in error.value.__notes__[0]


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
