"""Anchors: the boxes at every cell of a feature pyramid that a region proposal network starts from."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def per_level(
  shapes: Sequence[tuple[int, int]],
  strides: Sequence[int],
  scale: float = 8,
  ratios: Sequence[float] = (0.5, 1, 2),
) -> tuple[jax.Array, ...]:
  """Anchors of each level (mmdetection's `AnchorGenerator` with one scale and `center_offset=0`).

  Args:
    shapes: (rows, columns) of each level.
    strides: of each level, in pixels.
    scale: the square root of an anchor's area, in strides.
    ratios: heights over widths.

  Returns:
    For each level float32 [rows * columns * ratios, 4], in the order row, column, ratio, centered at the top-left
    corner of their cell.
  """
  return tuple(
    at(jnp.arange(rows * columns * len(ratios)), columns, stride, scale, ratios)
    for (rows, columns), stride in zip(shapes, strides, strict=True)
  )


def at(
  index: jax.Array, columns: int, stride: int, scale: float = 8, ratios: Sequence[float] = (0.5, 1, 2)
) -> jax.Array:
  """Some anchors of a level, float32 [..., 4]: of `index`, int [...], in its order of row, column, ratio.

  Computed, not looked up: on TPU, a table of N x 4 numbers is stored as N x 128.
  """
  # In mmdetection's order of operations, so that anchors are its to the last bit.
  height_ratios = jnp.sqrt(jnp.asarray(ratios, jnp.float32))
  cell, ratio = index // len(ratios), index % len(ratios)
  half_width = (0.5 * (stride * (1 / height_ratios) * scale))[ratio]
  half_height = (0.5 * (stride * height_ratios * scale))[ratio]
  x, y = (stride * (cell % columns)).astype(jnp.float32), (stride * (cell // columns)).astype(jnp.float32)
  return jnp.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def valid(
  anchors: Sequence[jax.Array],
  shapes: Sequence[tuple[int, int]],
  strides: Sequence[int],
  padded: jax.Array | Sequence[int],
  size: jax.Array | Sequence[int],
  allowed_border: int = -1,
) -> tuple[jax.Array, ...]:
  """Which anchors take part in training (mmdetection's `valid_flags` and `anchor_inside_flags`).

  Args:
    anchors: `per_level` of the same shapes and strides.
    shapes: (rows, columns) of each level.
    strides: of each level, in pixels.
    padded: (height, width) that the image itself is padded to, at most the canvas's; only cells within it count.
    size: (height, width) of the image.
    allowed_border: how many pixels anchors may reach beyond the image; negative: any number.

  Returns:
    For each level bool [rows * columns * ratios].
  """
  found = []
  for boxes, (rows, columns), stride in zip(anchors, shapes, strides, strict=True):
    # By arithmetic on the index: on TPU, flattening [rows, columns, ratios] compiles for half a minute.
    cell = jnp.arange(boxes.shape[0]) // (boxes.shape[0] // (rows * columns))
    is_valid = (cell // columns < -(-padded[0] // stride)) & (cell % columns < -(-padded[1] // stride))
    if allowed_border >= 0:
      is_valid &= (boxes[:, :2] >= -allowed_border).all(axis=1)
      is_valid &= (boxes[:, 2] < size[1] + allowed_border) & (boxes[:, 3] < size[0] + allowed_border)
    found.append(is_valid)
  return tuple(found)
