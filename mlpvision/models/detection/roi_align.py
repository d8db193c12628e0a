"""RoIAlign (He et al., arXiv 1703.06870, Sec. 3) as mmcv's `roi_align` with aligned=True, in static shapes.

Bilinear interpolation is separable, and so is the mean over a grid of samples: a RoI's values are Y x X^T, with one
matrix per axis that holds the mean weight of each row (column) of the map in each bin. The matrices are computed in
closed form, from the number of samples between two rows. So the adaptive grid needs no bound on its size: it is exact
for each RoI, also for those that are much larger than the map.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp

_FINEST = 56  # pixels; `finest_scale` of mmdetection's SingleRoIExtractor


def axis_weights(
  start: jax.Array, end: jax.Array, size: int, bins: int, samples: int = 0, cells: jax.Array | None = None
) -> jax.Array:
  """Weights of the cells of one axis of a map in the bins of RoIs; they have no gradient.

  A bin's samples lie in the middles of equal parts of it. A sample outside [-1, size] is zero; one inside is moved to
  [0, size - 1] and takes from the two cells around it.

  Args:
    start: float32 [...], where RoIs begin; cell i has its center at i.
    end: float32 [...], where they end. A RoI that ends before it begins counts as empty.
    size: cells of the map along this axis.
    bins: of a RoI along this axis.
    samples: per bin; 0 for mmcv's adaptive number ceil((end - start) / bins), which is 0 for an empty RoI.
    cells: int, broadcasts against start; only so many cells at the beginning are the map's. None: all.

  Returns:
    float32 [..., bins, size]; a row's sum is the share of its bin's samples that are inside, zero for an empty RoI.
  """
  start, end = jax.lax.stop_gradient((start, end))
  start, length = start[..., None, None], jnp.maximum(end - start, 0)[..., None, None]
  limit = size if cells is None else cells[..., None, None]
  # Divisors have the dividend's shape, lest XLA multiply by the inverse of a smaller one: its rounding can add a sample
  # to each bin, or move one across the border.
  bin_size = length / (bins + 0 * length)
  count = jnp.full_like(length, samples) if samples else jnp.ceil(bin_size)
  first = start + jnp.arange(bins, dtype=jnp.float32)[:, None] * bin_size

  def position(sample):  # in mmcv's order of operations: which samples are inside depends on the last bit
    return first + (sample + 0.5) * bin_size / (jnp.maximum(count, 1) + 0 * sample)

  step = bin_size / jnp.maximum(count, 1)
  at_cell = jnp.arange(size, dtype=jnp.float32)

  def below(edge):  # the number of samples below it; one on the last edge is inside, hence below
    nearest = jnp.clip(jnp.round((edge - first) / jnp.maximum(step, jnp.finfo(step.dtype).tiny) - 0.5), 0, count)
    at = position(nearest)
    return jnp.clip(nearest + ((at < edge) | ((at == edge) & (edge == limit))), 0, count)

  def rising(n):  # the sum of the first n samples' distances from the cell before
    return jnp.where(at_cell == 0, n, n * (first - at_cell + 1 + n * step / 2))

  def falling(n):  # the same to the cell after
    return jnp.where(at_cell == limit - 1, n, n * (at_cell + 1 - first - n * step / 2))

  # A sample at a cell adds the same to both sums, so that rounding does not matter there.
  low, middle, high = below(at_cell - 1), below(at_cell), below(at_cell + 1)
  total = rising(middle) - rising(low) + falling(high) - falling(middle)
  return jnp.where((high > low) & (at_cell < limit), total, 0) / jnp.maximum(count, 1)


def roi_align(x: jax.Array, rois: jax.Array, bins: int, scale: float, samples: int = 0) -> jax.Array:
  """Values of a map in the bins of RoIs: mmcv's `roi_align` (aligned=True, average).

  Args:
    x: [B, H, W, C].
    rois: float32 [B, n, 4], boxes (x1, y1, x2, y2) in pixels of the padded image.
    bins: of a RoI along each axis.
    scale: cells per pixel, 1 / stride of the map.
    samples: of a bin along each axis; 0 for the adaptive number, `sampling_ratio` of mmcv.

  Returns:
    [B, n, bins, bins, C] in x's dtype, rows before columns. Gradients reach x, not the RoIs, as in mmcv.
  """
  return _values(x, *_weights(x.shape, rois, bins, scale, samples))


def roi_levels(rois: jax.Array, levels: int) -> jax.Array:
  """The level of each RoI: mmdetection's `SingleRoIExtractor.map_roi_levels`.

  rois: float32 [..., 4]; levels: number of maps -> int32 [...]: 0 for RoIs whose square root of the area is below 112
  pixels, and one more each time it doubles, up to levels - 1.
  """
  area = (rois[..., 2] - rois[..., 0]) * (rois[..., 3] - rois[..., 1])
  ratio = jnp.sqrt(area) / _FINEST + 1e-6
  # floor(log2(ratio)) without the rounding of a logarithm.
  return sum((ratio >= 2**level).astype(jnp.int32) for level in range(1, levels)) + jnp.zeros(area.shape, jnp.int32)


@functools.partial(jax.jit, static_argnames=("bins", "strides", "samples"))
def multilevel_roi_align(
  maps: Sequence[jax.Array],
  rois: jax.Array,
  bins: int,
  strides: tuple[int, ...],
  samples: int = 0,
  cells: Sequence[jax.Array] | None = None,
) -> jax.Array:
  """RoIAlign of each RoI on the map of its level: mmdetection's `SingleRoIExtractor`.

  Args:
    maps: [B, H_i, W_i, C], the finest first.
    rois: float32 [B, n, 4], in pixels of the padded image.
    bins: of a RoI along each axis.
    strides: pixels per cell of each map.
    samples: as for `roi_align`.
    cells: int [B, 2] of each map, its valid rows and columns; None: all.

  Returns:
    [B, n, bins, bins, C] in the maps' dtype.
  """
  level = roi_levels(rois, len(maps))[..., None, None]
  total = 0
  for i, (x, stride) in enumerate(zip(maps, strides, strict=True)):
    rows, columns = _weights(x.shape, rois, bins, 1 / stride, samples, cells and cells[i])
    total += _values(x, jnp.where(level == i, rows, 0), columns)
  return total


def _weights(shape, rois, bins, scale, samples, cells=None):
  """Weights of rows [B, n, bins, H] and of columns [B, n, bins, W]."""
  rows, columns = (None, None) if cells is None else (cells[:, :1], cells[:, 1:])
  x1, y1, x2, y2 = jnp.moveaxis(rois.astype(jnp.float32) * scale - 0.5, -1, 0)
  y = axis_weights(y1, y2, shape[1], bins, samples, rows)
  return y, axis_weights(x1, x2, shape[2], bins, samples, columns)


def _values(x, rows, columns):
  rows, columns = rows.astype(x.dtype), columns.astype(x.dtype)
  # The longer axis goes first: what costs is reading and writing [B, n, bins, the other axis, C].
  if x.shape[1] > x.shape[2]:
    return jnp.einsum("bnqw,bnpwc->bnpqc", columns, jnp.einsum("bnph,bhwc->bnpwc", rows, x))
  return jnp.einsum("bnph,bnqhc->bnpqc", rows, jnp.einsum("bnqw,bhwc->bnqhc", columns, x))
