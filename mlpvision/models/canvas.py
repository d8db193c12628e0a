"""Images smaller than their canvas, so that one compiled program serves images of many sizes.

An image lies in the canvas's top left corner. `sizes` is int32 [B, 2], the height and width of each image in pixels.
A map has ceil(size / stride) valid rows and columns, its `cells`; what lies beyond them is unspecified, and must not
reach them. None in place of sizes or cells means the whole canvas: nothing is masked, and nothing is computed for it.
"""

import jax
import jax.numpy as jnp

from mlpvision.models import forms


def cells(sizes: jax.Array | None, stride: int | jax.Array) -> jax.Array | None:
  """Valid rows and columns of a map, int32 [B, 2]: sizes / stride, rounded up; a later map's, from a map's cells."""
  return None if sizes is None else -(-sizes // stride)


def mask(shape: tuple[int, ...], valid: jax.Array | None) -> jax.Array | None:
  """bool [B, H, W, 1]: whether a position of a map [B, H, W, C] is one of its valid cells; None for None."""
  return None if valid is None else forms.inside(shape, (0, 0), valid)


def masked(x: jax.Array, valid: jax.Array | None) -> jax.Array:
  """x [B, H, W, C] with zeros beyond its valid cells (or pixels)."""
  return x if valid is None else jnp.where(mask(x.shape, valid), x, jnp.zeros((), x.dtype))


def padded(x: jax.Array, multiple: int | tuple[int, int]) -> jax.Array:
  """x [B, H, W, C] with zeros below and to the right, up to multiples of `multiple`, or of (rows, columns)."""
  rows, columns = (multiple, multiple) if isinstance(multiple, int) else multiple
  bottom, right = -x.shape[1] % rows, -x.shape[2] % columns
  return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0))) if bottom or right else x
