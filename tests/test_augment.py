"""What the device does to images: statistics against the definitions, and independence of the mesh."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import numpy as np
import pytest

from mlpvision import augment, sharding


def test_flip_and_normalize():
  images = jnp.arange(2 * 2 * 3 * 3, dtype=jnp.uint8).reshape(2, 2, 3, 3)
  out = augment.normalize(images, (0.5, 0.25, 0.0), (1.0, 0.5, 2.0))
  np.testing.assert_allclose(out, (np.asarray(images) / 255 - [0.5, 0.25, 0]) / [1, 0.5, 2], rtol=1e-5)
  many = jnp.tile(images[:1], (2000, 1, 1, 1)).astype(jnp.float32)
  flipped = augment.random_flip(jax.random.key(0), many, 0.25)
  turned = (flipped != many).any((1, 2, 3))
  assert abs(turned.mean() - 0.25) < 0.04
  np.testing.assert_array_equal(flipped[turned][0], many[0][:, ::-1])
  np.testing.assert_array_equal(augment.random_flip(jax.random.key(0), images, 1.0), images[:, :, ::-1])


def _mixes(mixup, cutmix, draws=4000, size=16):
  """Images whose pixels are 1 where the own image stayed, [draws, size, size], and the target's share of its class.

  Image 0 is all ones with class 0, its partner all zeros with class 1.
  """
  images = jnp.stack([jnp.ones((size, size, 1)), jnp.zeros((size, size, 1))])
  mix = functools.partial(augment.mixup_cutmix, mixup=mixup, cutmix=cutmix)
  out, targets = jax.jit(jax.vmap(lambda key: mix(key, images, jnp.eye(2))))(jax.random.split(jax.random.key(3), draws))
  np.testing.assert_allclose(targets.sum(-1), 1.0, atol=1e-6)
  np.testing.assert_allclose(out[:, 0] + out[:, 1], 1.0, atol=1e-6)  # the partner gets the rest
  return np.asarray(out[:, 0, :, :, 0]), np.asarray(targets[:, 0, 0])


@pytest.mark.parametrize("alpha", [0.2, 2.0])
def test_mixup_draws_one_share_from_beta(alpha):
  images, shares = _mixes(alpha, 0.0)
  np.testing.assert_array_equal(images, np.broadcast_to(shares[:, None, None], images.shape))
  assert abs(shares.mean() - 0.5) < 0.02
  assert abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.008


def test_cutmix_replaces_a_box_and_counts_it():
  images, shares = _mixes(0.0, 1.0, size=32)
  assert set(np.unique(images)) == {0.0, 1.0}
  np.testing.assert_array_equal(images.mean((1, 2)), shares)  # the area that is true after clipping, exactly
  boxes = 1 - images
  filled = boxes.any(2).sum(1) * boxes.any(1).sum(1)
  np.testing.assert_array_equal(boxes.sum((1, 2)), filled)  # one full rectangle
  # Unclipped, lambda is uniform. A side r around a uniform centre keeps r - r^2 / 4 of the image on average.
  root = np.sqrt(np.linspace(0, 1, 10001))
  assert abs(1 - shares.mean() - ((root - root**2 / 4) ** 2).mean()) < 0.025  # sides are rounded down to even numbers
  assert abs(boxes[:, 5].mean() - boxes[:, -6].mean()) < 0.02


def test_the_box_s_centre_is_any_pixel_equally_often():
  """A box as large as the image, 4 x 6, shows by what it leaves out where its centre is."""
  box = jax.jit(jax.vmap(lambda key: augment._random_box(key, 4, 6, 1.0)))
  boxes = np.asarray(box(jax.random.split(jax.random.key(0), 3000)))
  for axis, size in ((2, 4), (1, 6)):
    found, counts = np.unique(boxes.any(axis), axis=0, return_counts=True)
    expected = [abs(np.arange(size) + 0.5 - centre) < size / 2 for centre in range(size)]
    assert {tuple(row) for row in found} == {tuple(row) for row in np.array(expected).tolist()}
    assert abs(counts / 3000 - 1 / size).max() < 0.04
  places = [boxes.any(axis) @ np.arange(size) for axis, size in ((2, 4), (1, 6))]
  assert abs(np.corrcoef(places)[0, 1]) < 0.06  # rows and columns are drawn apart


def test_a_coin_chooses_between_mixup_and_cutmix():
  images, _ = _mixes(0.8, 1.0)
  mixed = ((images > 0) & (images < 1)).any((1, 2))
  assert abs(mixed.mean() - 0.5) < 0.03


def test_neighbours_are_partners():
  images = jnp.arange(12.0).reshape(12, 1, 1, 1) * jnp.ones((1, 4, 4, 1))
  mix = jax.jit(functools.partial(augment.mixup_cutmix, mixup=1.0, cutmix=0.0))
  out, targets = mix(jax.random.key(0), images, jnp.eye(12))
  share = targets[0, 0]
  partner = np.arange(12).reshape(6, 2)[:, ::-1].ravel()
  np.testing.assert_allclose(out[:, 0, 0, 0], share * np.arange(12) + (1 - share) * partner, rtol=1e-5)
  np.testing.assert_allclose(targets, share * np.eye(12) + (1 - share) * np.eye(12)[partner], rtol=1e-5)


def test_off_changes_nothing():
  images, targets = jnp.ones((2, 4, 4, 3)), jnp.eye(2)
  assert augment.mixup_cutmix(None, images, targets, mixup=0.0, cutmix=0.0) == (images, targets)
  assert augment.random_erasing(None, images, 0.0) is images
  assert augment.random_flip(None, images, 0.0) is images


def test_random_erasing():
  size, count = 64, 1500
  images = jnp.full((count, size, size, 1), 99.0)
  out = np.asarray(jax.jit(augment.random_erasing, static_argnums=2)(jax.random.key(1), images, 0.5))[..., 0]
  erased = out != 99.0
  hit = erased.any((1, 2))
  assert abs(hit.mean() - 0.5) < 0.04
  noise, erased = out[erased], erased[hit]
  assert abs(noise.mean()) < 0.01
  assert abs(noise.std() - 1) < 0.01
  height, width = erased.any(2).sum(1), erased.any(1).sum(1)
  np.testing.assert_array_equal(erased.sum((1, 2)), height * width)  # one full rectangle
  area, aspect = height * width / size**2, np.log(height / width)
  assert 0.015 < area.min() < 0.03
  assert 0.31 < area.max() < 0.345
  assert abs(area.mean() - (0.02 + 1 / 3) / 2) < 0.012  # nearly all first draws fit
  assert abs(aspect.mean()) < 0.07
  assert abs(aspect.std() - np.log(1 / 0.3) / np.sqrt(3)) < 0.05
  assert abs(aspect).max() < np.log(1 / 0.3) + 0.15
  top, left = erased.any(2).argmax(1), erased.any(1).argmax(1)
  assert abs((top / (size - height)).mean() - 0.5) < 0.03
  assert abs((left / (size - width)).mean() - 0.5) < 0.03
  drawn = np.stack([area, aspect, top / (size - height), left / (size - width)])
  assert abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.15  # independent of each other


def test_erasing_always_where_nothing_is_too_large():
  erase = jax.jit(augment.random_erasing, static_argnums=2)
  out = erase(jax.random.key(0), jnp.full((500, 32, 32, 3), 99.0), 1.0)
  assert (out != 99.0).any((1, 2, 3)).all()


def test_one_device_and_eight_agree():
  def both(images, targets):
    images = augment.random_erasing(jax.random.key(0), images, 0.5)
    return augment.mixup_cutmix(jax.random.key(1), images, targets, mixup=0.8, cutmix=1.0)

  random = np.random.default_rng(0)
  batch = random.normal(size=(32, 8, 8, 3)).astype(np.float32), np.eye(32, dtype=np.float32)
  mesh = sharding.make_mesh()
  sharded = jax.device_put(batch, NamedSharding(mesh, sharding.BATCH))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), jax.jit(both)(*batch), jax.jit(both)(*sharded))
