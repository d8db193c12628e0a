"""PoolFormer (Yu et al., arXiv 2111.11418); follows the official implementation (sail-sg/poolformer).

Its token mixer has no parameters and no MLP: it shows what the other families' mixers add.
"""

from typing import Any, ClassVar

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from mlpvision.models import base, canvas, layers
from mlpvision.models.family import Family, wide_stages
from mlpvision.models.naming import CONV, DENSE, MLP_CONV1X1, NORM, Leaf, Table
from mlpvision.models.overlapping import OverlappingPyramid

_INIT = nn.initializers.normal(0.02)


def pooling(x: jax.Array, cells: jax.Array | None = None) -> jax.Array:
  """The mean of the 3x3 neighbors, minus x; [B, H, W, C] -> [B, H, W, C].

  Neighbors outside the map, or its valid cells (see `canvas`), are not counted.
  """
  ones = jnp.ones((1, *x.shape[1:3], 1), jnp.float32)
  count = _sum_of_neighbors(ones if cells is None else canvas.mask(x.shape, cells).astype(jnp.float32))
  total = _sum_of_neighbors(canvas.masked(x, cells).astype(jnp.float32))
  return (total / jnp.maximum(count, 1.0)).astype(x.dtype) - x


def _sum_of_neighbors(x):
  """By shifts along one axis, then the other: XLA on CPU compiles windows to slow code."""
  for axis in (1, 2):
    paddings = ([(0, 0, 0)] * axis + [(step, -step, 0)] + [(0, 0, 0)] * (3 - axis) for step in (1, -1))
    x = x + sum(lax.pad(x, jnp.zeros((), x.dtype), padding) for padding in paddings)
  return x


class PoolFormerBlock(nn.Module):
  """x + s1 * pooling(norm(x)), then x + s2 * MLP(norm(x)) (Fig. 2); [B, H, W, C] -> [B, H, W, C]."""

  mlp_ratio: float
  layer_scale_init: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, drop_path: layers.DropPath, cells: jax.Array | None = None
  ) -> jax.Array:
    channels, mask = x.shape[-1], canvas.mask(x.shape, cells)

    def scaled(y, name):
      return y * self.param(name, nn.initializers.constant(self.layer_scale_init), (channels,)).astype(self.dtype)

    y = pooling(layers.GroupNorm1(dtype=self.dtype, name="norm1")(x, mask), cells)
    x = x + drop_path(scaled(y, "layer_scale1"), 0)
    y = layers.GroupNorm1(dtype=self.dtype, name="norm2")(x, mask)
    mlp = dict(dropout=self.dropout, kernel_init=_INIT, dtype=self.dtype, name="channel_mixing")
    y = layers.Mlp(int(channels * self.mlp_ratio), **mlp)(y, train)
    return x + drop_path(scaled(y, "layer_scale2"), 1)


class PoolFormer(OverlappingPyramid):
  """PoolFormer, a pyramid of four stages, for any image size.

  Attributes, in addition to those of every `OverlappingPyramid`:
    layer_scale_init: initial value of the scale at the end of each branch, smaller for deeper variants.
  """

  map_norm: ClassVar[str] = "group"

  depths: tuple[int, ...] = (2, 2, 6, 2)
  layer_scale_init: float = 1e-5

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    return_features: bool = False,
    sizes: jax.Array | None = None,
  ) -> base.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]. sizes: only for `features`."""
    maps = self.stages(PoolFormerBlock, images, train, sizes)
    if return_features:
      return maps
    x = layers.GroupNorm1(dtype=self.dtype, name="norm")(maps[-1])
    return base.classify(x.mean((1, 2)), self.num_classes, kernel_init=_INIT)


_M = (96, 192, 384, 768)

VARIANTS = {
  "poolformer_s12": dict(depths=(2, 2, 6, 2)),
  "poolformer_s24": dict(depths=(4, 4, 12, 4)),
  "poolformer_s36": dict(depths=(6, 6, 18, 6), layer_scale_init=1e-6),
  "poolformer_m36": dict(hidden_dim=_M, depths=(6, 6, 18, 6), layer_scale_init=1e-6),
  "poolformer_m48": dict(hidden_dim=_M, depths=(8, 8, 24, 8), layer_scale_init=1e-6),
}


def _arguments(shapes):
  return dict(patch_size=(shapes["stem/kernel"][0] + 1) // 2, **wide_stages(shapes))


_BLOCK = "stage_{s}_block_{i}"


def _names(name, stem, theirs, scale, merging, norm, head):
  return Table(
    name,
    (
      (stem, "stem", CONV),
      (f"{theirs}.norm1", f"{_BLOCK}/norm1", NORM),
      (f"{theirs}.norm2", f"{_BLOCK}/norm2", NORM),
      (f"{theirs}.mlp", f"{_BLOCK}/channel_mixing", MLP_CONV1X1),
      (theirs, _BLOCK, tuple(Leaf(scale.format(n), f"layer_scale{n}") for n in (1, 2))),
      (merging, "merge_{s}", CONV),
      (norm, "norm", NORM),
      (head, "head", DENSE),
    ),
  )


# timm's head pools before the norm. Its weights are the official ones, whose norm comes first, as here.
_TABLES = (
  _names("official", "patch_embed.proj", "network.{2s}.{i}", "layer_scale_{}", "network.{2s+1}.proj", "norm", "head"),
  _names(
    "timm",
    "stem.conv",
    "stages.{s}.blocks.{i}",
    "layer_scale{}.scale",
    "stages.{s+1}.downsample.conv",
    "head.norm",
    "head.fc",
  ),
)

FAMILY = Family(PoolFormer, VARIANTS, _arguments, block=_BLOCK, free=("layer_scale_init",), tables=_TABLES)
