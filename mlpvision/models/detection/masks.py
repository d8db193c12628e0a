"""Targets of a mask head: objects' masks in the frames of proposals, from whole bitmaps or from crops of them."""

import jax
import jax.numpy as jnp

from mlpvision.models.detection.roi_align import axis_weights


def targets_from_bitmaps(bitmaps: jax.Array, proposals: jax.Array, index: jax.Array, size: int = 28) -> jax.Array:
  """Targets as mmdetection's `mask_target`: RoIAlign of bitmaps with the adaptive grid, at least one half.

  Args:
    bitmaps: uint8 or bool [G, H, W], masks of one image's objects, of ones and zeros.
    proposals: float32 [n, 4], boxes (x1, y1, x2, y2) in pixels of the bitmaps; they are clipped to them.
    index: int32 [n], each proposal's object.
    size: of the target.

  Returns:
    float32 [n, size, size] of ones and zeros.
  """
  height, width = bitmaps.shape[1:]
  limit = jnp.asarray([width, height, width, height], jnp.float32)
  x1, y1, x2, y2 = (jnp.clip(proposals, 0, limit) - 0.5).T
  rows, columns = axis_weights(y1, y2, height, size), axis_weights(x1, x2, width, size)
  return _at_least_half(bitmaps[index].astype(jnp.float32), rows, columns)


def targets_from_crops(
  crops: jax.Array, boxes: jax.Array, proposals: jax.Array, index: jax.Array, size: int = 28
) -> jax.Array:
  """Targets from each object's mask in the frame of its own box (`data.host_masks.crop`), a batch of fixed size.

  A crop is sampled as a bitmap is, and is zero outside its box. Targets differ from those of whole bitmaps in a few
  pixels of a thousand, at the borders of masks.

  Args:
    crops: uint8 [G, R, R], masks of one image's objects from 0 to 255.
    boxes: float32 [G, 4], the objects' boxes (x1, y1, x2, y2) that the crops show, in pixels.
    proposals: float32 [n, 4], boxes inside the image, in pixels.
    index: int32 [n], each proposal's object.
    size: of the target.

  Returns:
    float32 [n, size, size] of ones and zeros.
  """
  cells = crops.shape[-1]
  boxes = boxes[index]
  corner, extent = jnp.tile(boxes[:, :2], 2), jnp.tile(boxes[:, 2:] - boxes[:, :2], 2)
  x1, y1, x2, y2 = ((proposals - corner) * cells / jnp.where(extent > 0, extent, 1) - 0.5).T

  def weights(start, end):  # of a crop with a border of one zero cell, which ends the clamping at the map's border
    return axis_weights(start + 1, end + 1, cells + 2, size)[..., 1:-1]

  return _at_least_half(crops[index].astype(jnp.float32) / 255, weights(y1, y2), weights(x1, x2))


def _at_least_half(maps, rows, columns):
  exact = jax.lax.Precision.HIGHEST
  values = jnp.einsum("nph,nhw,nqw->npq", rows, maps, columns, precision=exact)
  return (values >= 0.5).astype(jnp.float32)
