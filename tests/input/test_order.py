"""The stream of training images: every image once per epoch, or each several times in its batch."""

import collections

import numpy as np
import pytest

from mlpvision.data.order import Order, OrientedOrder


def _stream(count, num_images, **options):
  order = Order(num_images, seed=0, **options)
  return [order(position) for position in range(count)]


@pytest.mark.parametrize("batch_size", [1, 8, 30])
def test_without_repeats_an_epoch_is_a_permutation(batch_size):
  stream = _stream(300, 100, batch_size=batch_size)
  epochs = [stream[i : i + 100] for i in (0, 100, 200)]
  assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize(("num_images", "batch_size", "repeats"), [(3000, 48, 3), (4000, 100, 3), (999, 36, 2)])
def test_repeats_give_each_image_of_an_epoch_that_often(num_images, batch_size, repeats):
  distinct = num_images // repeats
  stream = _stream(3 * distinct * repeats, num_images, batch_size=batch_size, repeats=repeats)
  stop = distinct * repeats // batch_size * batch_size  # whole batches of the first epoch
  counts = collections.Counter(stream[:stop])
  assert abs(len(counts) - distinct) <= batch_size // repeats + 1
  edge = [image for image, count in counts.items() if count != repeats]
  assert len(edge) <= 1  # the one that the last of these batches cuts
  # Nearly all copies are in one batch; the edge of each batch may cut through one image.
  batches = np.reshape(stream[:stop], (-1, batch_size))
  per_batch = [collections.Counter(batch.tolist()) for batch in batches]
  assert all(sum(count != repeats for count in counter.values()) <= 2 for counter in per_batch)
  # The next epoch has other images: it has its own permutation.
  second = set(stream[distinct * repeats + batch_size : 2 * distinct * repeats - batch_size])
  expected = len(second) * distinct / num_images
  assert abs(len(second & counts.keys()) - expected) < 0.2 * len(second)


@pytest.mark.parametrize(("batch_size", "repeats"), [(1024, 3), (512, 3), (48, 3), (16, 2), (64, 4)])
def test_copies_are_never_mixed_with_each_other(batch_size, repeats):
  stream = np.array(_stream(4 * batch_size, 100_000, batch_size=batch_size, repeats=repeats))
  pairs = stream.reshape(-1, 2)
  assert (pairs[:, 0] != pairs[:, 1]).all()
  partners = collections.defaultdict(set)
  for a, b in pairs:
    partners[a].add(b)
    partners[b].add(a)
  assert np.mean([len(others) for others in partners.values()]) > 1.5  # an image meets more than one other


@pytest.mark.parametrize(("num_images", "batch_size", "repeats"), [(20, 6, 3), (7, 4, 2), (3, 4, 2), (2, 6, 3)])
def test_repeats_take_the_first_images_of_each_epoch_s_permutation(num_images, batch_size, repeats):
  """At least one image, however few there are; within its batch an image may stand anywhere."""
  epochs = np.reshape(_stream(10 * num_images, num_images, batch_size=1), (10, num_images))
  expected = epochs[:, : max(1, num_images // repeats)].ravel().repeat(repeats)
  expected = expected[: len(expected) // batch_size * batch_size]
  stream = _stream(len(expected), num_images, batch_size=batch_size, repeats=repeats)
  batches = [np.sort(np.reshape(images, (-1, batch_size))) for images in (stream, expected)]
  np.testing.assert_array_equal(*batches)


def test_the_order_of_images_does_not_depend_on_the_batch_size_without_repeats():
  assert _stream(250, 100, batch_size=10) == _stream(250, 100, batch_size=25)


def _kinds(order, steps, batch_size, wide):
  """Whether each step's images are wide, after a check that all of its images are of one kind."""
  found = []
  for step in range(steps):
    images = [order(step * batch_size + row) for row in range(batch_size)]
    assert set(wide[images]) == {order.is_wide(step)}
    found.append(order.is_wide(step))
  return found


@pytest.mark.parametrize(
  ("num_images", "num_wide", "batch_size"), [(103, 70, 8), (40, 39, 8), (7, 3, 16), (20, 0, 4), (20, 20, 4), (1, 1, 2)]
)
def test_batches_of_one_orientation_never_drift_from_their_share(num_images, num_wide, batch_size):
  wide = np.random.default_rng(1).permutation(num_images) < num_wide
  order = OrientedOrder(wide, seed=5, batch_size=batch_size)
  steps = max(1, num_images // batch_size)
  kinds = _kinds(order, 6 * steps, batch_size, wide)
  for block in range(1, 7):
    assert sum(kinds[: block * steps]) == block * steps * num_wide // num_images


def test_each_orientation_has_its_own_permutations():
  wide = np.arange(60) % 3 == 0
  order = OrientedOrder(wide, seed=5, batch_size=4)
  streams = {True: [], False: []}
  for step in range(150):
    streams[order.is_wide(step)] += [order(step * 4 + row) for row in range(4)]
  for kind, stream in streams.items():
    images = np.flatnonzero(wide == kind).tolist()
    epochs = [stream[i : i + len(images)] for i in range(0, len(stream) - len(images), len(images))]
    assert len(epochs) > 5
    assert all(sorted(epoch) == images for epoch in epochs)
    assert len(set(map(tuple, epochs))) == len(epochs)
  blocks = [[order.is_wide(step) for step in range(start, start + 15)] for start in range(0, 150, 15)]
  assert len(set(map(tuple, blocks))) > 5  # the kinds are permuted anew
  other = OrientedOrder(wide, seed=6, batch_size=4)
  assert [order.is_wide(step) for step in range(60)] != [other.is_wide(step) for step in range(60)]


def test_an_image_is_replaced_by_one_of_its_orientation():
  wide = np.arange(60) % 3 == 0
  order, rng = OrientedOrder(wide, seed=5, batch_size=4), np.random.default_rng(0)
  for index in (0, 1):
    found = {order.replacement(index, rng) for _ in range(200)}
    assert found <= set(np.flatnonzero(wide == wide[index]))
    assert len(found) > 15
