"""ResMLP (Touvron et al., arXiv 2105.03404); follows the official implementation (facebookresearch/deit)."""

from typing import Any

from flax import linen as nn
import jax

from mlpvision.models import base, layers
from mlpvision.models.family import Family, isotropic
from mlpvision.models.naming import AFFINE, AFFINE_3D, CONV, DENSE, MLP, Leaf, Table

_INIT = nn.initializers.normal(0.02)


class ResMLPBlock(nn.Module):
  """One linear layer across the patches, then an MLP across the channels (Sec. 2); [B, S, C] -> [B, S, C].

  Each branch starts with an affine transform and ends with a scale per channel. In the paper, the scale is also an
  affine transform; as in the official code, it has no bias here.
  """

  mlp_ratio: float
  layer_scale_init: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, drop_path: layers.DropPath) -> jax.Array:
    tokens, channels = x.shape[1:]
    dense = dict(kernel_init=_INIT, dtype=self.dtype)

    def scaled(y, name):
      return y * self.param(name, nn.initializers.constant(self.layer_scale_init), (channels,)).astype(self.dtype)

    y = layers.Affine(dtype=self.dtype, name="norm1")(x).swapaxes(1, 2)
    y = layers.Dense(tokens, **dense, name="linear_tokens")(y).swapaxes(1, 2)
    x = x + drop_path(scaled(y, "layer_scale1"), 0)
    y = layers.Affine(dtype=self.dtype, name="norm2")(x)
    hidden_dim = int(channels * self.mlp_ratio)
    y = layers.Mlp(hidden_dim, self.dropout, **dense, name="channel_mixing")(y, train)
    return x + drop_path(scaled(y, "layer_scale2"), 1)


class ResMLP(base.Backbone):
  """ResMLP. The token layers fix the number of patches, so parameters are for one image size.

  Attributes, in addition to those of every `Backbone`:
    patch_size, num_blocks, hidden_dim: the official code's patch_size, depth, embed_dim.
    mlp_ratio: hidden width of the channel MLPs / channels.
    layer_scale_init: initial value of the scale at the end of each branch, smaller for deeper variants.
    drop_path: the same rate in every block, as in the official code.
  """

  patch_size: int = 16
  num_blocks: int = 12
  hidden_dim: int = 384
  mlp_ratio: float = 4.0
  layer_scale_init: float = 0.1

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> base.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]."""
    x = base.patch_embed(images, self.patch_size, self.hidden_dim, dtype=self.dtype)
    rows, columns = x.shape[1:3]
    x = x.reshape(x.shape[0], rows * columns, self.hidden_dim)
    self.check_patches(_patches, rows, columns)
    for i, drop_path in enumerate(self.drop_paths(x.shape[0], train, constant=True)):
      x = self.block(ResMLPBlock, f"block_{i}")(x, train, drop_path)
    x = layers.Affine(dtype=self.dtype, name="norm")(x)
    if return_features:
      return (x.reshape(x.shape[0], rows, columns, self.hidden_dim),)
    return base.classify(x.mean(1), self.num_classes, kernel_init=_INIT)


VARIANTS = {
  "resmlp_s12": dict(patch_size=16, num_blocks=12, hidden_dim=384, layer_scale_init=0.1),
  "resmlp_s24": dict(patch_size=16, num_blocks=24, hidden_dim=384, layer_scale_init=1e-5),
  "resmlp_s36": dict(patch_size=16, num_blocks=36, hidden_dim=384, layer_scale_init=1e-6),
  "resmlp_b24_16": dict(patch_size=16, num_blocks=24, hidden_dim=768, layer_scale_init=1e-6),
  "resmlp_b24_8": dict(patch_size=8, num_blocks=24, hidden_dim=768, layer_scale_init=1e-6),
}


def _patches(_, shapes):
  return shapes["block_0/linear_tokens/kernel"][0]


def _names(name, stem, tokens, channels, scale, affine):
  return Table(
    name,
    (
      (stem, "stem", CONV),
      ("blocks.{i}.norm1", "block_{i}/norm1", affine),
      (f"blocks.{{i}}.{tokens}", "block_{i}/linear_tokens", DENSE),
      ("blocks.{i}.norm2", "block_{i}/norm2", affine),
      (f"blocks.{{i}}.{channels}", "block_{i}/channel_mixing", MLP),
      ("blocks.{i}", "block_{i}", (Leaf(f"{scale}1", "layer_scale1"), Leaf(f"{scale}2", "layer_scale2"))),
      ("norm", "norm", affine),
      ("head", "head", DENSE),
    ),
  )


_TABLES = (
  _names("timm", "stem.proj", "linear_tokens", "mlp_channels", "ls", AFFINE_3D),
  _names("official", "patch_embed.proj", "attn", "mlp", "gamma_", AFFINE),
)

FAMILY = Family(ResMLP, VARIANTS, isotropic, patches=_patches, free=("layer_scale_init",), tables=_TABLES)
