"""A feature pyramid network (Lin et al., arXiv 1612.03144), as mmdetection's `FPN` neck."""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import canvas
from mlpvision.models.naming import CONV, Table

# The names of mmdetection's state dicts.
TABLE = Table(
  "mmdet",
  (
    ("neck.lateral_convs.{i}.conv", "neck/lateral_convs_{i}", CONV),
    ("neck.fpn_convs.{i}.conv", "neck/fpn_convs_{i}", CONV),
  ),
)


class FPN(nn.Module):
  """Maps of a backbone -> maps of one width, each enriched by the coarser ones, and one more level.

  Convolutions have a bias, and neither norm nor activation. Initialized with Xavier's uniform distribution.

  channels: of all levels.
  """

  channels: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: tuple[jax.Array, ...], cells: Sequence[jax.Array] | None = None) -> tuple[jax.Array, ...]:
    """maps: [B, H_i, W_i, C_i], the finest first -> as many [B, H_i, W_i, channels], and every second cell of the last.

    The coarser map is resized to the finer one's size by nearest neighbor, whatever the ratio of their sizes.

    cells: int [B, 2] of each map, its valid rows and columns, each map's twice those of the next one. The levels are
      then zero beyond them, and equal to those of the valid part alone. None: all.
    """
    valid = [None] * len(maps) if cells is None else list(cells)

    def conv(x, size, name):
      init = nn.initializers.xavier_uniform()
      return nn.Conv(self.channels, (size, size), padding=size // 2, kernel_init=init, dtype=self.dtype, name=name)(x)

    levels = [conv(x, 1, f"lateral_convs_{i}") for i, x in enumerate(maps)]
    for i in range(len(levels) - 1, 0, -1):
      levels[i - 1] += nearest(levels[i], levels[i - 1].shape[1:3])
    levels = [canvas.masked(x, of_map) for x, of_map in zip(levels, valid, strict=True)]
    out = [canvas.masked(conv(x, 3, f"fpn_convs_{i}"), valid[i]) for i, x in enumerate(levels)]
    return (*out, out[-1][:, ::2, ::2])


def nearest(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """Resizes maps [B, H, W, C] to [B, *shape, C]: PyTorch's interpolate, cell floor(i * old / new) for cell i."""
  for axis, length in zip((1, 2), shape, strict=True):
    old = x.shape[axis]
    if length % old == 0:
      x = jnp.repeat(x, length // old, axis)
    else:
      x = jnp.take(x, jnp.arange(length) * old // length, axis)
  return x
