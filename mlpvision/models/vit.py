"""ViT (Dosovitskiy et al., arXiv 2010.11929), with the details of common weights (AugReg and DeiT, as in timm)."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import base, layers
from mlpvision.models.attention import Attention
from mlpvision.models.family import Family, isotropic
from mlpvision.models.naming import CONV, DENSE, MLP, NORM, Leaf, Table

# As in DeiT and timm, for training from scratch on ImageNet-1k.
_INIT = nn.initializers.normal(0.02)


class ViTBlock(nn.Module):
  """Pre-norm self-attention, then pre-norm MLP (Sec. 3.1, Eq. 2-3); [B, N, C] -> [B, N, C]."""

  num_heads: int
  mlp_ratio: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, drop_path: layers.DropPath) -> jax.Array:
    dense = dict(dropout=self.dropout, kernel_init=_INIT, dtype=self.dtype)
    y = layers.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")(x)
    x = x + drop_path(Attention(self.num_heads, **dense, name="attention")(y, train), 0)
    y = layers.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")(x)
    hidden_dim = int(x.shape[-1] * self.mlp_ratio)
    return x + drop_path(layers.Mlp(hidden_dim, **dense, name="channel_mixing")(y, train), 1)


class ViT(base.Backbone):
  """ViT with a class token. `init` gives `pos_embedding` the number of patches of its images.

  One module is therefore ViT-B/16 for both 224 and 384 pixels; only `pos_embedding` differs.

  Attributes, in addition to those of every `Backbone`:
    patch_size, num_blocks, hidden_dim, num_heads: the paper's Table 1 (P, layers, D, heads); the small one is DeiT's.
    mlp_ratio: hidden width of the MLPs / channels.
    dropout: also after the position embedding and the projection of the attention.
  """

  patch_size: int = 16
  num_blocks: int = 12
  hidden_dim: int = 768
  num_heads: int = 12
  mlp_ratio: float = 4.0

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> base.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]."""
    x = base.patch_embed(images, self.patch_size, self.hidden_dim, dtype=self.dtype)
    batch, rows, columns, channels = x.shape
    self.check_patches(_patches, rows, columns)
    cls = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, channels)).astype(self.dtype)
    cls = jnp.broadcast_to(cls, (batch, 1, channels))
    x = jnp.concatenate([cls, x.reshape(batch, rows * columns, channels)], axis=1)
    x = x + self.param("pos_embedding", _INIT, (1, *x.shape[1:])).astype(self.dtype)
    x = layers.Dropout(self.dropout)(x, train)
    for i, drop_path in enumerate(self.drop_paths(x.shape[0], train)):
      x = self.block(ViTBlock, f"block_{i}")(x, train, drop_path)
    x = layers.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
    if return_features:
      return (x[:, 1:].reshape(batch, rows, columns, channels),)
    return base.classify(x[:, 0], self.num_classes, kernel_init=_INIT)


VARIANTS = {
  "vit_s16": dict(patch_size=16, num_blocks=12, hidden_dim=384, num_heads=6),
  "vit_b16": dict(patch_size=16, num_blocks=12, hidden_dim=768, num_heads=12),
  "vit_l16": dict(patch_size=16, num_blocks=24, hidden_dim=1024, num_heads=16),
}


def _arguments(shapes):
  arguments = isotropic(shapes)
  # Every published ViT has 64 channels per head; for other widths, the number of heads is ambiguous.
  heads, rest = divmod(arguments["hidden_dim"], 64)
  return dict(**arguments, num_heads=None if rest else heads)


def _patches(_, shapes):
  return shapes["pos_embedding"][1] - 1


_TIMM = Table(
  "timm",  # also DeiT's repository
  (
    ("", "", (Leaf("cls_token", "cls_token"), Leaf("pos_embed", "pos_embedding"))),
    ("patch_embed.proj", "stem", CONV),
    ("blocks.{i}.norm1", "block_{i}/norm1", NORM),
    ("blocks.{i}.attn.qkv", "block_{i}/attention/qkv", DENSE),
    ("blocks.{i}.attn.proj", "block_{i}/attention/proj", DENSE),
    ("blocks.{i}.norm2", "block_{i}/norm2", NORM),
    ("blocks.{i}.mlp", "block_{i}/channel_mixing", MLP),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

FAMILY = Family(ViT, VARIANTS, _arguments, patches=_patches, resize="pos_embedding", tables=(_TIMM,))
