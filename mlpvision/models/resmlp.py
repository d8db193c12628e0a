"""ResMLP (Touvron et al., arXiv 2105.03404), after the official implementation (facebookresearch/deit)."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import layers, norms, remat
from mlpvision.models.family import Family, isotropic
from mlpvision.models.naming import AFFINE, AFFINE_3D, CONV, DENSE, Leaf, Table

_INIT = nn.initializers.normal(0.02)


class ResMLPBlock(nn.Module):
  """One linear layer across the patches, then an MLP across the channels (Sec. 2); [B, S, C] -> [B, S, C].

  Each branch starts with an affine transform and ends with a scale per channel. The paper writes the latter as an
  affine transform too; the official code, followed here, gives it no bias.
  """

  mlp_ratio: float
  layer_scale_init: float
  drop_path: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    tokens, channels = x.shape[1:]
    dense = dict(kernel_init=_INIT, dtype=self.dtype)
    drop_path = layers.DropPath(self.drop_path)

    def scaled(y, name):
      return y * self.param(name, nn.initializers.constant(self.layer_scale_init), (channels,)).astype(self.dtype)

    y = norms.Affine(dtype=self.dtype, name="norm1")(x).swapaxes(1, 2)
    y = layers.Dense(tokens, **dense, name="linear_tokens")(y).swapaxes(1, 2)
    x = x + drop_path(scaled(y, "layer_scale1"), train)
    y = norms.Affine(dtype=self.dtype, name="norm2")(x)
    hidden_dim = int(channels * self.mlp_ratio)
    y = layers.Mlp(hidden_dim, self.dropout, **dense, name="channel_mixing")(y, train)
    return x + drop_path(scaled(y, "layer_scale2"), train)


class ResMLP(layers.Backbone):
  """ResMLP. The token layers fix the number of patches, so a set of parameters serves one image size.

  Attributes:
    num_classes: width of the head; None gives the pooled features [B, hidden_dim] instead of logits.
    patch_size, num_blocks, hidden_dim: the official code's patch_size, depth, embed_dim.
    mlp_ratio: hidden width of the channel MLPs over the channels.
    layer_scale_init: initial value of the scale at the end of each branch, smaller for deeper variants.
    drop_path: stochastic depth, the same rate in every block as in the official code.
    dropout: after both layers of every channel MLP; 0 in the paper.
    remat: what the backward pass computes again: "none", "block" or "preactivations", see `remat.wrap`.
    dtype: of the computation; parameters and logits are float32.
  """

  num_classes: int | None = 1000
  patch_size: int = 16
  num_blocks: int = 12
  hidden_dim: int = 384
  mlp_ratio: float = 4.0
  layer_scale_init: float = 0.1
  drop_path: float = 0.0
  dropout: float = 0.0
  remat: str = "none"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> layers.Outputs:
    """images: float [B, H, W, 3], normalised -> float32 logits [B, num_classes]."""
    x = layers.patch_embed(images, self.patch_size, self.hidden_dim, dtype=self.dtype)
    rows, columns = x.shape[1:3]
    x = x.reshape(x.shape[0], rows * columns, self.hidden_dim)
    self.check_patches(_patches, rows, columns)
    block = remat.wrap(ResMLPBlock, self.remat)
    for i in range(self.num_blocks):
      x = block(
        mlp_ratio=self.mlp_ratio,
        layer_scale_init=self.layer_scale_init,
        drop_path=self.drop_path,
        dropout=self.dropout,
        dtype=self.dtype,
        name=f"block_{i}",
      )(x, train)
    x = norms.Affine(dtype=self.dtype, name="norm")(x)
    if return_features:
      return (x.reshape(x.shape[0], rows, columns, self.hidden_dim),)
    return layers.classify(x.mean(1), self.num_classes, kernel_init=_INIT)


VARIANTS = {
  "resmlp_s12": dict(patch_size=16, num_blocks=12, hidden_dim=384, layer_scale_init=0.1),
  "resmlp_s24": dict(patch_size=16, num_blocks=24, hidden_dim=384, layer_scale_init=1e-5),
  "resmlp_s36": dict(patch_size=16, num_blocks=36, hidden_dim=384, layer_scale_init=1e-6),
  "resmlp_b24_16": dict(patch_size=16, num_blocks=24, hidden_dim=768, layer_scale_init=1e-6),
  "resmlp_b24_8": dict(patch_size=8, num_blocks=24, hidden_dim=768, layer_scale_init=1e-6),
}


def _patches(shapes):
  return shapes["block_0/linear_tokens/kernel"][0]


_TIMM = Table(
  "timm",
  (
    ("stem.proj", "stem", CONV),
    ("blocks.{i}.norm1", "block_{i}/norm1", AFFINE_3D),
    ("blocks.{i}.linear_tokens", "block_{i}/linear_tokens", DENSE),
    ("blocks.{i}.norm2", "block_{i}/norm2", AFFINE_3D),
    ("blocks.{i}.mlp_channels.fc1", "block_{i}/channel_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp_channels.fc2", "block_{i}/channel_mixing/Dense_1", DENSE),
    ("blocks.{i}", "block_{i}", (Leaf("ls1", "layer_scale1"), Leaf("ls2", "layer_scale2"))),
    ("norm", "norm", AFFINE_3D),
    ("head", "head", DENSE),
  ),
)

_OFFICIAL = Table(
  "official",  # facebookresearch/deit
  (
    ("patch_embed.proj", "stem", CONV),
    ("blocks.{i}.norm1", "block_{i}/norm1", AFFINE),
    ("blocks.{i}.attn", "block_{i}/linear_tokens", DENSE),
    ("blocks.{i}.norm2", "block_{i}/norm2", AFFINE),
    ("blocks.{i}.mlp.fc1", "block_{i}/channel_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp.fc2", "block_{i}/channel_mixing/Dense_1", DENSE),
    ("blocks.{i}", "block_{i}", (Leaf("gamma_1", "layer_scale1"), Leaf("gamma_2", "layer_scale2"))),
    ("norm", "norm", AFFINE),
    ("head", "head", DENSE),
  ),
)

FAMILY = Family(
  ResMLP,
  VARIANTS,
  isotropic,
  patches=_patches,
  free=("layer_scale_init",),
  tables=(_TIMM, _OFFICIAL),
)
