"""Boxes: overlaps, and regression targets relative to proposals; always in float32."""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp

# Widths and heights change by at most this factor, mmdetection's `wh_ratio_clip`.
_MAX_LOG_RATIO = math.log(1000 / 16)


def area(boxes: jax.Array) -> jax.Array:
  """Boxes [..., 4] -> float32 [...], square pixels."""
  boxes = boxes.astype(jnp.float32)
  return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: jax.Array, b: jax.Array, epsilon: float = 1e-6) -> jax.Array:
  """Intersection over union of every pair (mmdetection's `bbox_overlaps`).

  Args:
    a: boxes [..., N, 4].
    b: boxes [..., M, 4].
    epsilon: the least union to divide by, in square pixels, so that two empty boxes have an IoU of 0.

  Returns:
    float32 [..., N, M].
  """
  a, b = a[..., :, None, :], b[..., None, :, :]
  intersection, union = _intersection_and_union(a, b)
  return intersection / jnp.maximum(union, epsilon)


def giou(a: jax.Array, b: jax.Array, epsilon: float = 1e-7) -> jax.Array:
  """Generalized IoU of each box of `a` with its box of `b` (arXiv 1902.09630); mmdetection's `GIoULoss` is 1 - it.

  Args:
    a: boxes [..., 4].
    b: boxes [..., 4]; shapes broadcast.
    epsilon: the least union and least enclosing area to divide by, in square pixels.

  Returns:
    float32 [...], -1 to 1.
  """
  intersection, union = _intersection_and_union(a, b)
  low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
  enclosing = jnp.maximum(area(jnp.concatenate([low, jnp.maximum(low, high)], axis=-1)), epsilon)
  union = jnp.maximum(union, epsilon)
  return intersection / union - (enclosing - union) / enclosing


def clip(boxes: jax.Array, size: jax.Array | Sequence[int]) -> jax.Array:
  """Boxes [..., 4] -> float32 [..., 4] within an image of size (height, width)."""
  height, width = size[0], size[1]
  limit = jnp.stack([jnp.asarray(x, jnp.float32) for x in (width, height, width, height)])
  return jnp.clip(boxes.astype(jnp.float32), 0, limit)


def encode(proposals: jax.Array, targets: jax.Array, stds: Sequence[float] = (1, 1, 1, 1)) -> jax.Array:
  """The deltas that turn proposals into targets (mmdetection's `DeltaXYWHBBoxCoder.encode`, means 0; arXiv 1311.2524).

  Args:
    proposals: boxes [..., 4].
    targets: boxes [..., 4].
    stds: what the four deltas are divided by.

  Returns:
    float32 [..., 4]: shifts of the center in widths and heights of the proposal, and logarithms of the ratios of widths
    and heights. Not finite where a box is empty: drop those by `jnp.where`, not by a weight of 0.
  """
  center, sides = _center_and_sides(proposals)
  target_center, target_sides = _center_and_sides(targets)
  deltas = jnp.concatenate([(target_center - center) / sides, jnp.log(target_sides / sides)], axis=-1)
  return deltas / jnp.asarray(stds, jnp.float32)


def decode(
  proposals: jax.Array,
  deltas: jax.Array,
  stds: Sequence[float] = (1, 1, 1, 1),
  size: jax.Array | Sequence[int] | None = None,
) -> jax.Array:
  """The boxes that deltas make of proposals (mmdetection's `DeltaXYWHBBoxCoder.decode`, means 0).

  Args:
    proposals: boxes [..., 4].
    deltas: of any float type, [..., 4 K], four numbers for each of K classes.
    stds: what the four deltas are multiplied by.
    size: (height, width) that boxes are clipped to; None leaves them.

  Returns:
    float32 [..., 4 K]. Ratios of widths and of heights stay within 16 / 1000 and 1000 / 16.
  """
  center, sides = _center_and_sides(proposals[..., None, :])
  deltas = deltas.astype(jnp.float32)
  scaled = deltas.reshape(*deltas.shape[:-1], -1, 4) * jnp.asarray(stds, jnp.float32)
  center = center + sides * scaled[..., :2]
  half = sides * jnp.exp(jnp.clip(scaled[..., 2:], -_MAX_LOG_RATIO, _MAX_LOG_RATIO)) * 0.5
  decoded = jnp.concatenate([center - half, center + half], axis=-1)
  decoded = decoded if size is None else clip(decoded, size)
  return decoded.reshape(deltas.shape)


def _intersection_and_union(a, b):
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
  sides = jnp.maximum(sides, 0)
  intersection = sides[..., 0] * sides[..., 1]
  return intersection, area(a) + area(b) - intersection


def _center_and_sides(boxes):
  low, high = boxes[..., :2].astype(jnp.float32), boxes[..., 2:].astype(jnp.float32)
  return (low + high) * 0.5, high - low
