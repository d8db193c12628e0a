"""S2-MLPv2 (Yu et al., arXiv 2108.01072). No official code or weights were released; this follows the paper.

Third-party ports differ: most shift in place, so that a row spreads over the whole map, and all have a wider split
attention than the paper's number of parameters allows.
"""

from typing import Any, ClassVar

from flax import linen as nn
import jax

from mlpvision.models import base, canvas, layers
from mlpvision.models.family import Family, wide_stages
from mlpvision.models.naming import CONV, DENSE, MLP, NORM, Table
from mlpvision.models.shift import DOWN, LEFT, RIGHT, UP, spatial_shift
from mlpvision.models.split_attention import SplitAttention

# The paper states no initialization; as in ViP's code, whose network and training it shares.
_INIT = nn.initializers.normal(0.02)
# Eq. 1 and 8. The paper contradicts itself on which axis comes first; exchanging the first two parts of the channels
# turns one reading into the other.
_SHIFTS = ((RIGHT, LEFT, DOWN, UP), (DOWN, UP, RIGHT, LEFT))


class S2Mixing(nn.Module):
  """Dense to three parts, two of them shifted, split attention, Dense (Eq. 5-9, Algorithm 1); [B, H, W, C] -> same.

  Without activations; the border keeps its value. cells: valid rows and columns of x, see `canvas`.
  """

  reduction: int
  pool: str
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, cells: jax.Array | None = None) -> jax.Array:
    channels, dense = x.shape[-1], dict(kernel_init=_INIT, dtype=self.dtype)
    y = layers.Dense(3 * channels, **dense, name="fc1")(x)
    parts = [y[..., k * channels : (k + 1) * channels] for k in range(3)]
    shifted = [spatial_shift(part, one, cells=cells) for part, one in zip(parts[:2], _SHIFTS, strict=True)]
    options = dict(layout="branch", bias=False, kernel_init=_INIT, pool=self.pool, dtype=self.dtype)
    y = SplitAttention(self.reduction, **options, name="reweight")((*shifted, parts[2]), cells)
    return layers.Dense(channels, **dense, name="fc2")(y)


class S2v2Block(nn.Module):
  """x + S2Mixing(norm(x)), then x + MLP(norm(x)): pre-norm, unlike S2-MLP (Sec. 3.3); [B, H, W, C] -> [B, H, W, C]."""

  mlp_ratio: float
  reduction: int
  pool: str
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, drop_path: layers.DropPath, cells: jax.Array | None = None
  ) -> jax.Array:
    norm = dict(epsilon=1e-5, dtype=self.dtype)
    y = layers.LayerNorm(**norm, name="norm1")(x)
    y = S2Mixing(self.reduction, self.pool, self.dtype, name="mixing")(y, cells)
    x = x + drop_path(y, 0)
    y = layers.LayerNorm(**norm, name="norm2")(x)
    mlp = dict(dropout=self.dropout, kernel_init=_INIT, dtype=self.dtype, name="channel_mixing")
    return x + drop_path(layers.Mlp(int(x.shape[-1] * self.mlp_ratio), **mlp)(y, train), 1)


class S2MLPv2(base.Backbone):
  """S2-MLPv2, a pyramid of two stages, for image sides that its last stride divides; `features` takes any size.

  Attributes, in addition to those of every `Backbone`:
    patch_size, hidden_dim, depths, mlp_ratio: patches of the first stage, then channels, blocks and hidden width /
      channels of each stage (Table 1). Patches of 2x2 positions lead to each further stage.
    reduction: channels / hidden width of the split attention. The paper does not state it; with 4, ViP's, the model
      has the paper's numbers of parameters and multiply-accumulates (Table 2).
    pool: of the split attention: "mean", as the paper's text says, or "sum", as in its Eq. 2.
    final_norm: a norm before the head, as in ViP, whose pyramid the paper says is the same; it describes no head.
  """

  any_size: ClassVar[bool] = True

  patch_size: int = 7
  hidden_dim: tuple[int, ...] = (192, 384)
  depths: tuple[int, ...] = (4, 14)
  mlp_ratio: tuple[float, ...] = (3.0, 3.0)
  reduction: int = 4
  pool: str = "mean"
  final_norm: bool = True

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
    self.check_stages()
    height, width = images.shape[1:3]
    if not return_features and (height % self.size_divisor or width % self.size_divisor):
      raise ValueError(f"images of {height}x{width}: S2-MLPv2 needs image sides divisible by {self.size_divisor}")
    x, cells, stride, name = images, sizes, self.patch_size, "stem"
    drop_paths = iter(self.drop_paths(images.shape[0], train))
    maps = []
    for stage, (depth, channels, ratio) in enumerate(zip(self.depths, self.hidden_dim, self.mlp_ratio, strict=True)):
      x = canvas.padded(canvas.masked(x, cells), stride)
      x = base.strided(x, stride, channels, name, overlapping=False, dtype=self.dtype)
      cells = canvas.cells(cells, stride)
      for i in range(depth):
        block = self.block(S2v2Block, f"stage_{stage}_block_{i}", mlp_ratio=ratio)
        x = block(x, train, next(drop_paths), cells)
      maps.append(x)
      stride, name = 2, f"merge_{stage}"
    if return_features:
      return tuple(maps)
    if self.final_norm:
      x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
    return base.classify(x.mean((1, 2)), self.num_classes, kernel_init=_INIT)


VARIANTS = {
  "s2mlpv2_small7": dict(hidden_dim=(192, 384), depths=(4, 14)),
  "s2mlpv2_medium7": dict(hidden_dim=(256, 512), depths=(7, 17)),
}


def _arguments(shapes):
  channels, hidden_dim = shapes["stage_0_block_0/mixing/reweight/Dense_0/kernel"]
  sizes = dict(patch_size=shapes["stem/kernel"][0], reduction=channels // hidden_dim)
  return dict(**sizes, **wide_stages(shapes), final_norm="norm/scale" in shapes)


_THEIRS, _BLOCK = "stages.{s}.{i}", "stage_{s}_block_{i}"

# A PyTorch port's names, after the paper's: no official ones exist.
_PYTORCH = Table(
  "pytorch",
  (
    ("embed.0", "stem", CONV),
    ("embed.{s+1}", "merge_{s}", CONV),
    (f"{_THEIRS}.norm1", f"{_BLOCK}/norm1", NORM),
    (f"{_THEIRS}.s2.mlp1", f"{_BLOCK}/mixing/fc1", DENSE),
    (f"{_THEIRS}.s2.split_attention.mlp1", f"{_BLOCK}/mixing/reweight/Dense_0", DENSE),
    (f"{_THEIRS}.s2.split_attention.mlp2", f"{_BLOCK}/mixing/reweight/Dense_1", DENSE),
    (f"{_THEIRS}.s2.mlp2", f"{_BLOCK}/mixing/fc2", DENSE),
    (f"{_THEIRS}.norm2", f"{_BLOCK}/norm2", NORM),
    (f"{_THEIRS}.mlp", f"{_BLOCK}/channel_mixing", MLP),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

FAMILY = Family(S2MLPv2, VARIANTS, _arguments, block=_BLOCK, tables=(_PYTORCH, Table("mlpvision")))
