"""Augmentation of a batch on the device, inside the compiled step."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def normalize(images: jax.Array | np.ndarray, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
  """uint8 [B, H, W, 3] -> float32, (pixels / 255 - mean) / std per channel."""
  mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
  return (images.astype(jnp.float32) / 255.0 - mean) / std


def random_flip(key: jax.Array, images: jax.Array, probability: float) -> jax.Array:
  """Mirrors each image [B, H, W, C] left to right with the given probability, independently."""
  if probability == 0.0:
    return images
  flip = jax.random.bernoulli(key, probability, (images.shape[0], 1, 1, 1))
  return jnp.where(flip, images[:, :, ::-1], images)


def random_erasing(key: jax.Array, images: jax.Array, probability: float) -> jax.Array:
  """Replaces a random rectangle of each image by noise (arXiv 1708.04896, as timm does it).

  The rectangle's area is uniform in (0.02, 1/3) of the image's, its aspect ratio (height / width) is log-uniform in
  (0.3, 1/0.3), and the noise is N(0, 1) per pixel and channel. If ten rectangles do not fit, the image is unchanged.

  images: float [B, H, W, C], normalized; probability: independent for each image.
  """
  if probability == 0.0:
    return images
  (count, height, width, _), tries = images.shape, 10
  key, noise_key = jax.random.split(key)
  # One draw for all numbers, because XLA on CPU compiles a loop for each.
  uniform = jax.random.uniform(key, (count, 3 + 2 * tries))
  chosen = uniform[:, 0] < probability
  area = (0.02 + (1 / 3 - 0.02) * uniform[:, 3 : 3 + tries]) * height * width
  aspect = jnp.exp(jnp.log(0.3) * (1.0 - 2.0 * uniform[:, 3 + tries :]))
  heights, widths = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
  fits = (heights < height) & (widths < width)
  first = fits.argmax(1)[:, None]
  h, w = (jnp.take_along_axis(sides, first, 1)[:, 0] for sides in (heights, widths))
  top = jnp.floor(uniform[:, 1] * (height - h + 1))
  left = jnp.floor(uniform[:, 2] * (width - w + 1))
  erased = _inside(top, top + h, height)[:, :, None] & _inside(left, left + w, width)[:, None, :]
  erased &= (chosen & fits.any(1))[:, None, None]
  return jnp.where(erased[..., None], jax.random.normal(noise_key, images.shape, images.dtype), images)


def mixup_cutmix(
  key: jax.Array, images: jax.Array, targets: jax.Array, *, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
  """Mixes each image with its neighbor in the batch, by mixup (arXiv 1710.09412) or cutmix (arXiv 1905.04899).

  If both are on, one of them is chosen at random per batch. lambda is also drawn once per batch: image and target have
  weight lambda, the partner's 1 - lambda. Cutmix replaces a box with sqrt(1 - lambda) of the image's height and width
  around a uniformly drawn center; the box is clipped to the image, and lambda is set to the remaining area.

  Images 0 and 1, 2 and 3, ... are partners. Since batches are drawn at random, this is equivalent to reversing the
  batch, but no image moves between devices and the pairs are the same on any mesh.

  images: float [B, H, W, C], B even; targets: float [B, K]; mixup, cutmix: alpha of the distribution Beta(alpha, alpha)
    of lambda, 0 is off.
  """
  if not mixup and not cutmix:
    return images, targets
  coin_key, share_key, box_key = jax.random.split(key, 3)
  height, width = images.shape[1:3]
  is_cutmix = jax.random.bernoulli(coin_key) if mixup and cutmix else bool(cutmix)
  alpha = jnp.where(is_cutmix, cutmix, mixup)
  share = jax.random.beta(share_key, alpha, alpha)
  kept = ~_random_box(box_key, height, width, jnp.sqrt(1.0 - share))
  weights = jnp.where(is_cutmix, kept.astype(jnp.float32), share)
  share = jnp.where(is_cutmix, kept.mean(dtype=jnp.float32), share)

  def partners(x):
    return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)

  weights = weights[:, :, None].astype(images.dtype)
  return weights * images + (1 - weights) * partners(images), share * targets + (1 - share) * partners(targets)


def _random_box(key, height, width, side):
  """bool [H, W]: a box of `side` times the image's height and width, rounded down, with its center in the image."""
  rows, columns = jax.random.split(key)
  sides = []
  for key, size in ((rows, height), (columns, width)):
    center, half = jax.random.randint(key, (), 0, size), jnp.floor(size * side).astype(jnp.int32) // 2
    sides.append(_inside(center - half, center + half, size))
  return sides[0][:, None] & sides[1]


def _inside(start, stop, size):
  """bool [..., size]: which of the positions 0, ..., size - 1 are in [start, stop)."""
  positions = jnp.arange(size)
  return (positions >= jnp.asarray(start)[..., None]) & (positions < jnp.asarray(stop)[..., None])
