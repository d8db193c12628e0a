"""Random samples of anchors and proposals: their sizes, order and chances."""

import functools

import jax
import numpy as np
import pytest

from mlpvision.models.detection import assign, sample

_NUMBER, _COUNT, _FRACTION = 600, 64, 0.25
_DRAWN = jax.jit(functools.partial(sample.drawn, count=_COUNT, positive_fraction=_FRACTION))
_SLOTS = jax.jit(functools.partial(sample.slots, count=_COUNT, positive_fraction=_FRACTION))


def _candidates(positives, background, seed=0):
  assigned = np.full(_NUMBER, assign.IGNORED, np.int32)
  places = np.random.default_rng(seed).permutation(_NUMBER)
  assigned[places[:positives]] = np.arange(positives) % 7
  assigned[places[positives : positives + background]] = assign.BACKGROUND
  return assigned


@pytest.mark.parametrize(
  ("positives", "background"), [(0, 0), (0, 500), (5, 500), (100, 500), (100, 10), (600, 0), (5, 20), (16, 48)]
)
def test_sizes_and_order(positives, background):
  assigned = _candidates(positives, background)
  key = jax.random.key(positives)
  is_drawn, slots = np.asarray(_DRAWN(key, assigned)), jax.tree.map(np.asarray, _SLOTS(key, assigned))
  taken = min(positives, 16)
  assert (is_drawn & (assigned >= 0)).sum() == taken
  assert (is_drawn & (assigned == assign.BACKGROUND)).sum() == min(background, _COUNT - taken)
  assert not is_drawn[assigned == assign.IGNORED].any()
  # Positives, then background, each by ascending index; then empty slots.
  expected = [*np.flatnonzero(is_drawn & (assigned >= 0)), *np.flatnonzero(is_drawn & (assigned < 0))]
  empty = _COUNT - len(expected)
  assert slots.index.tolist() == [*expected, *[0] * empty]
  assert slots.is_filled.tolist() == [True] * len(expected) + [False] * empty
  assert slots.is_positive.tolist() == [True] * taken + [False] * (_COUNT - taken)


def test_every_candidate_has_the_same_chance():
  assigned = _candidates(100, 500)
  counts = np.asarray(jax.vmap(lambda key: _DRAWN(key, assigned))(jax.random.split(jax.random.key(0), 1000))).sum(0)
  for kind, size in ((assigned >= 0, 16), (assigned == assign.BACKGROUND, 48)):
    share = size / kind.sum()
    spread = (1000 * share * (1 - share)) ** 0.5
    assert abs(counts[kind].std() / spread - 1) < 0.25
    assert np.abs(counts[kind] - 1000 * share).max() < 5 * spread


def test_the_key_decides():
  assigned = _candidates(100, 500)
  first, again, other = (np.asarray(_DRAWN(jax.random.key(i), assigned)) for i in (1, 1, 2))
  assert (first == again).all()
  assert (first != other).any()


def test_objects_come_first_as_their_own_positives():
  gts, proposals = np.arange(12).reshape(3, 4), 100 + np.arange(8).reshape(2, 4)
  merged, assigned = jax.jit(sample.with_ground_truth)(proposals, np.array([2, -1]), gts, np.array([5, -1, 0]))
  np.testing.assert_array_equal(merged, np.concatenate([gts, proposals]))
  assert assigned.tolist() == [0, assign.IGNORED, 2, 2, assign.BACKGROUND]
  # Fewer candidates than slots.
  slots = jax.tree.map(np.asarray, _SLOTS(jax.random.key(0), assigned))
  assert slots.index.tolist() == [0, 2, 3, 4] + [0] * (_COUNT - 4)
  assert slots.is_filled.sum() == 4
  assert slots.is_positive.sum() == 3
