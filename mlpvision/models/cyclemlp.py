"""CycleMLP (Chen et al., arXiv 2107.10224; ICLR 2022); follows the official implementation (ShoufaChen/CycleMLP)."""

from typing import Any

from flax import linen as nn
import jax

from mlpvision.models import base, canvas, layers
from mlpvision.models.family import Family, wide_stages
from mlpvision.models.naming import CONV, CONV1X1, DENSE, MLP, NORM, Table
from mlpvision.models.overlapping import OverlappingPyramid
from mlpvision.models.shift import cycle_shift
from mlpvision.models.split_attention import SplitAttention

_INIT = nn.initializers.normal(0.02)


class CycleMixing(nn.Module):
  """Two Cycle FCs and a Dense layer, split attention, Dense; [B, H, W, C] -> [B, H, W, C].

  A Cycle FC is a shift and the Dense layer after it. The official names mislead: `sfc_h` shifts along the width,
  `sfc_w` along the height. The paper's Eq. 4 and figures shift otherwise than its code, which is followed here.

  cells: valid rows and columns of x, see `canvas`; shifts move zeros in from beyond.
  """

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, cells: jax.Array | None = None) -> jax.Array:
    channels, dense = x.shape[-1], dict(kernel_init=_INIT, dtype=self.dtype)
    x = canvas.masked(x, cells)
    branches = (
      layers.Dense(channels, **dense, name="sfc_h")(cycle_shift(x, axis=2)),
      layers.Dense(channels, **dense, name="sfc_w")(cycle_shift(x, axis=1)),
      layers.Dense(channels, use_bias=False, **dense, name="mlp_c")(x),
    )
    attention = SplitAttention(4, layout="channel", bias=True, kernel_init=_INIT, dtype=self.dtype, name="reweight")
    return layers.Dense(channels, **dense, name="proj")(attention(branches, cells))


class CycleBlock(nn.Module):
  """x + CycleMixing(norm(x)), then x + MLP(norm(x)); [B, H, W, C] -> [B, H, W, C]."""

  mlp_ratio: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, drop_path: layers.DropPath, cells: jax.Array | None = None
  ) -> jax.Array:
    norm = dict(epsilon=1e-5, dtype=self.dtype)
    y = layers.LayerNorm(**norm, name="norm1")(x)
    x = x + drop_path(CycleMixing(self.dtype, name="mixing")(y, cells), 0)
    y = layers.LayerNorm(**norm, name="norm2")(x)
    mlp = dict(dropout=self.dropout, kernel_init=_INIT, dtype=self.dtype, name="channel_mixing")
    return x + drop_path(layers.Mlp(int(x.shape[-1] * self.mlp_ratio), **mlp)(y, train), 1)


class CycleMLP(OverlappingPyramid):
  """CycleMLP, a pyramid of four stages, for any image size. It has the attributes of every `OverlappingPyramid`."""

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
    maps = self.stages(CycleBlock, images, train, sizes)
    if return_features:
      return maps
    x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(maps[-1])
    return base.classify(x.mean((1, 2)), self.num_classes, kernel_init=_INIT)


_WIDE_FIRST = (8.0, 8.0, 4.0, 4.0)

VARIANTS = {
  "cyclemlp_b1": dict(depths=(2, 2, 4, 2)),
  "cyclemlp_b2": dict(depths=(2, 3, 10, 3)),
  "cyclemlp_b3": dict(depths=(3, 4, 18, 3), mlp_ratio=_WIDE_FIRST),
  "cyclemlp_b4": dict(depths=(3, 8, 27, 3), mlp_ratio=_WIDE_FIRST),
  "cyclemlp_b5": dict(hidden_dim=(96, 192, 384, 768), depths=(3, 4, 24, 3)),
}


def _arguments(shapes):
  return dict(patch_size=(shapes["stem/kernel"][0] + 1) // 2, **wide_stages(shapes))


_THEIRS, _BLOCK = "network.{2s}.{i}", "stage_{s}_block_{i}"

_OFFICIAL = Table(
  "official",
  (
    ("patch_embed.proj", "stem", CONV),
    ("network.{2s+1}.proj", "merge_{s}", CONV),
    (f"{_THEIRS}.norm1", f"{_BLOCK}/norm1", NORM),
    (f"{_THEIRS}.attn.sfc_h", f"{_BLOCK}/mixing/sfc_h", CONV1X1),
    (f"{_THEIRS}.attn.sfc_w", f"{_BLOCK}/mixing/sfc_w", CONV1X1),
    (f"{_THEIRS}.attn.mlp_c", f"{_BLOCK}/mixing/mlp_c", DENSE),
    (f"{_THEIRS}.attn.reweight", f"{_BLOCK}/mixing/reweight", MLP),
    (f"{_THEIRS}.attn.proj", f"{_BLOCK}/mixing/proj", DENSE),
    (f"{_THEIRS}.norm2", f"{_BLOCK}/norm2", NORM),
    (f"{_THEIRS}.mlp", f"{_BLOCK}/channel_mixing", MLP),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
  ignore=r"\.offset$",  # buffers: the shifts
)

FAMILY = Family(CycleMLP, VARIANTS, _arguments, block=_BLOCK, tables=(_OFFICIAL,))
