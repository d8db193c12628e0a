"""Reading ahead: as many reads at a time as were asked for, each where it belongs, and none when nobody asked."""

import dataclasses
import pickle
import threading

import pytest

from mlpvision.data import datasets, loader
from mlpvision.data.reads import Ahead
from mlpvision.errors import UserError


class _Together:
  """A source whose reads return only once `count` of them wait at the same time."""

  def __init__(self, source, count):
    self._source, self._barrier = source, threading.Barrier(count, timeout=20)

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    self._barrier.wait()
    return self._source[index]


def test_as_many_reads_wait_as_were_asked_for():
  source = Ahead(_Together([10, 11, 12], 4), 4)
  taken = (0, 2, 2, 1)
  for index in taken:
    source.expect(index)
  assert [source[index] for index in taken] == [10, 12, 12, 11]
  source.close()


def test_what_is_not_expected_is_read_at_once_and_errors_come_where_they_are_taken():
  source = pickle.loads(pickle.dumps(Ahead([10, 11], 2)))
  source.expect(5)
  assert source[1] == 11
  with pytest.raises(IndexError):
    source[5]
  source.close()
  assert Ahead([10, 11], 0)[0] == 10


@pytest.mark.parametrize("evaluation", [False, True])
def test_the_loader_has_its_reads_in_flight_although_it_decodes_in_few_threads(data_dir, small_config, evaluation):
  """With less than 20 at a time, the first batch would never come."""
  small_config.data.update(workers=0, reads=20, prefetch=1, batch_size=4)
  small_config.eval.batch_size = 4
  split = datasets.open_split("mnist5k", "test[:40]", str(data_dir))
  slow = dataclasses.replace(split, source=_Together(split.source, 20))
  load = loader.eval_batches if evaluation else loader.train_batches
  options = {} if evaluation else dict(start_step=0)
  found, expected = load(slow, small_config, **options), load(split, small_config, **options)
  for _ in range(10):
    assert (next(found)["image"] == next(expected)["image"]).all()
  expected.close()
  slow.source._barrier.abort()  # what is in flight
  found.close()


class _Unreadable:
  def __init__(self, source):
    self._source = source

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    if index == 33:
      raise UserError("image 33 is gone")
    return self._source[index]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_read_ahead_ends_the_loader_after_what_comes_before(data_dir, small_config, workers):
  small_config.data.update(workers=workers, reads=20)
  small_config.eval.batch_size = 8
  split = datasets.open_split("mnist5k", "test[:80]", str(data_dir))
  batches = loader.eval_batches(dataclasses.replace(split, source=_Unreadable(split.source)), small_config)
  assert [next(batches)["mask"].sum() for _ in range(4)] == [8] * 4
  with pytest.raises(UserError, match="image 33 of mnist5k:test.*image 33 is gone"):
    next(batches)
