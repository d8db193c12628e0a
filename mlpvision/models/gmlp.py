"""gMLP (Liu et al., "Pay Attention to MLPs", arXiv 2105.08050), with the details of timm's published weights."""

from typing import Any

from flax import linen as nn
import jax

from mlpvision.models import base, forms, layers
from mlpvision.models.family import Family, isotropic
from mlpvision.models.naming import CONV, DENSE, MLP, NORM, Table

# timm's initializers. The gate starts as u * 1, nearly independent of v, which the paper calls critical (Sec. 2.1).
_XAVIER = nn.initializers.xavier_uniform()
_NEAR_ZERO = nn.initializers.normal(1e-6)


class SpatialGating(nn.Module):
  """u * (W norm(v) + b) of the halves u, v of the channels (Sec. 2.1); [B, N, 2C] -> [B, N, C].

  W [N, N] mixes patches and is the same for all channels. The norm's epsilon is not that of the other norms, in timm's
  code and therefore in its weights.
  """

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    half = x.shape[-1] // 2
    u, v = x[..., :half], x[..., half:]
    v = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(v).swapaxes(1, 2)
    init = dict(kernel_init=_NEAR_ZERO, bias_init=nn.initializers.ones_init())
    return u * layers.Dense(v.shape[-1], **init, dtype=self.dtype, name="proj")(v).swapaxes(1, 2)


class GatedMlp(nn.Module):
  """Dense, GELU, spatial gating, Dense (Sec. 2, Fig. 1); [B, N, C] -> [B, N, C]. The gating halves hidden_dim."""

  hidden_dim: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    dense = dict(kernel_init=_XAVIER, bias_init=_NEAR_ZERO, dtype=self.dtype)
    y = forms.gelu(layers.Dense(self.hidden_dim, **dense, name="Dense_0")(x))
    y = layers.Dropout(self.dropout)(y, train)
    y = layers.Dense(x.shape[-1], **dense, name="Dense_1")(SpatialGating(self.dtype, name="gate")(y))
    return layers.Dropout(self.dropout)(y, train)


class GMLPBlock(nn.Module):
  """x + GatedMlp(norm(x)): one branch, for patches and channels together; [B, N, C] -> [B, N, C]."""

  mlp_ratio: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, drop_path: layers.DropPath) -> jax.Array:
    y = layers.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
    y = GatedMlp(int(x.shape[-1] * self.mlp_ratio), self.dropout, self.dtype, name="channel_mixing")(y, train)
    return x + drop_path(y, 0)


class GMLP(base.Backbone):
  """gMLP. The gates' layers fix the number of patches, so parameters are for one image size.

  Attributes, in addition to those of every `Backbone`:
    patch_size, num_blocks, hidden_dim: the paper's Table 1 (patches, L, d_model).
    mlp_ratio: d_ffn / d_model, 6 in all variants; d_ffn must be even.
    drop_path: the same rate in every block, as in timm. The paper gives survival probabilities (1, 0.95 and 0.8) and
      does not say whether they depend on the depth.
  """

  patch_size: int = 16
  num_blocks: int = 30
  hidden_dim: int = 256
  mlp_ratio: float = 6.0

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> base.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]."""
    if int(self.hidden_dim * self.mlp_ratio) % 2:
      raise ValueError(f"mlp_ratio {self.mlp_ratio} of {self.hidden_dim} channels is odd: the gate needs two halves")
    stem = dict(kernel_init=nn.initializers.lecun_normal(), bias_init=nn.initializers.zeros_init(), dtype=self.dtype)
    x = base.patch_embed(images, self.patch_size, self.hidden_dim, **stem)
    rows, columns = x.shape[1:3]
    x = x.reshape(x.shape[0], rows * columns, self.hidden_dim)
    self.check_patches(_patches, rows, columns)
    for i, drop_path in enumerate(self.drop_paths(x.shape[0], train, branches=1, constant=True)):
      x = self.block(GMLPBlock, f"block_{i}")(x, train, drop_path)
    x = layers.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
    if return_features:
      return (x.reshape(x.shape[0], rows, columns, self.hidden_dim),)
    return base.classify(x.mean(1), self.num_classes, kernel_init=nn.initializers.zeros_init())


VARIANTS = {
  "gmlp_ti16": dict(hidden_dim=128),
  "gmlp_s16": dict(hidden_dim=256),
  "gmlp_b16": dict(hidden_dim=512),
}


def _patches(_, shapes):
  return shapes["block_0/channel_mixing/gate/proj/kernel"][0]


_TIMM = Table(
  "timm",
  (
    ("stem.proj", "stem", CONV),
    ("blocks.{i}.norm", "block_{i}/norm", NORM),
    ("blocks.{i}.mlp_channels", "block_{i}/channel_mixing", MLP),
    ("blocks.{i}.mlp_channels.gate.norm", "block_{i}/channel_mixing/gate/norm", NORM),
    ("blocks.{i}.mlp_channels.gate.proj", "block_{i}/channel_mixing/gate/proj", DENSE),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

FAMILY = Family(GMLP, VARIANTS, isotropic, patches=_patches, tables=(_TIMM,))
