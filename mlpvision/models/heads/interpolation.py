"""Bilinear resizing and adaptive pooling of maps, as in PyTorch, also of the valid part of a larger canvas.

With sizes, each map [H, W] of a batch is valid in its first (height, width) cells; what is beyond them is not read.
"""

import jax
from jax import lax
import jax.numpy as jnp


def bilinear(
  x: jax.Array, shape: tuple[int, int], sizes: jax.Array | None = None, new_sizes: jax.Array | None = None
) -> jax.Array:
  """Resizes maps [B, H, W, C] to [B, *shape, C]: PyTorch's interpolate with align_corners=False, not antialiased.

  sizes, new_sizes: int [B, 2], the valid (height, width) before and after; None: the whole canvases.
  """
  if sizes is not None:
    rows, columns = (_weights(x.shape[1 + i], shape[i], sizes[:, i], new_sizes[:, i]) for i in (0, 1))
    return apply(x, rows, columns)
  for axis in (1, 2):
    x = _enlarged(x, axis, shape[axis - 1])
  return x


def _enlarged(x, axis, length):
  """Resizes one axis; multiples of its length without a matrix product."""
  old = x.shape[axis]
  if length == old:
    return x
  if old == 1 or length % old:
    weights = _weights(old, length, jnp.array([old]), jnp.array([length]))[0].astype(x.dtype)
    precision = "highest" if x.dtype == jnp.float32 else None
    return jnp.moveaxis(jnp.tensordot(weights, x, (1, axis), precision=precision), 0, axis)
  factor = length // old
  first, last = (lax.slice_in_dim(x, at, at + 1, axis=axis) for at in (0, old - 1))
  before = jnp.concatenate([first, lax.slice_in_dim(x, 0, old - 1, axis=axis)], axis)
  after = jnp.concatenate([lax.slice_in_dim(x, 1, old, axis=axis), last], axis)
  phases = []
  for phase in range(factor):
    offset = (phase + 0.5) / factor - 0.5  # of the new cell's center from the old one's, in old cells
    neighbor, share = (before, -offset) if offset < 0 else (after, offset)
    phases.append(x * (1 - share) + neighbor * share)
  return jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], length, *x.shape[axis + 1 :])


def matrices(shape: tuple[int, int], new_shape: tuple[int, int], sizes: jax.Array, new_sizes: jax.Array) -> tuple:
  """(rows, columns), float32 [B, new, old], for `apply`: the bilinear resizing of the valid parts of canvases."""
  return tuple(_weights(shape[i], new_shape[i], sizes[:, i], new_sizes[:, i]) for i in (0, 1))


def apply(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """rows @ x @ columns^T for each map: [B, H, W, C], [B, H', H], [B, W', W] -> [B, H', W', C], in the dtype of x."""
  precision = "highest" if x.dtype == jnp.float32 else None  # a TPU would round float32 to bfloat16
  x = jnp.einsum("byi,bijc->byjc", rows.astype(x.dtype), x, precision=precision)
  return jnp.einsum("bxj,byjc->byxc", columns.astype(x.dtype), x, precision=precision)


def _weights(old, new, sizes, new_sizes):
  """float32 [B, new, old]; rows beyond new_sizes are zero."""
  position = jnp.arange(new)
  source = (position + 0.5) * (sizes / new_sizes)[:, None] - 0.5
  source = jnp.clip(source, 0, sizes[:, None] - 1)
  distance = jnp.abs(source[..., None] - jnp.arange(old))
  weights = jnp.maximum(0.0, 1.0 - distance).astype(jnp.float32)
  return weights * (position < new_sizes[:, None])[..., None]


def adaptive_pool(x: jax.Array, bins: int, sizes: jax.Array | None = None) -> jax.Array:
  """PyTorch's AdaptiveAvgPool2d: [B, H, W, C] -> [B, bins, bins, C].

  Bin i of n cells is the mean of cells floor(i n / bins) to ceil((i + 1) n / bins) - 1, so bins may overlap.
  """
  if sizes is None:
    sizes = jnp.array([x.shape[1:3]])
  rows, columns = (
    jnp.broadcast_to(weights, (x.shape[0], *weights.shape[1:]))
    for weights in (_bins(x.shape[1 + i], bins, sizes[:, i]) for i in (0, 1))
  )
  return apply(x.astype(jnp.float32), rows, columns).astype(x.dtype)


def _bins(old, bins, sizes):
  """float32 [B, bins, old]."""
  i, sizes = jnp.arange(bins), sizes[:, None]
  start, stop = i * sizes // bins, -(-(i + 1) * sizes // bins)
  cell = jnp.arange(old)
  inside = (cell >= start[..., None]) & (cell < stop[..., None])
  return inside / (stop - start)[..., None].astype(jnp.float32)


def inside(shape: tuple[int, int], sizes: jax.Array) -> jax.Array:
  """bool [B, *shape, 1]: whether a cell of the canvas is valid."""
  y, x = (jnp.arange(side) < sizes[:, i, None] for i, side in enumerate(shape))
  return (y[:, :, None] & x[:, None, :])[..., None]
