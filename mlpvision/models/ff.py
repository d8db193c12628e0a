"""FF (Melas-Kyriazi, "Do You Even Need Attention?", arXiv 2105.02723): a ViT with token MLPs instead of attention.

Follows the official implementation (lukemelas/do-you-even-need-attention).
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import base, layers
from mlpvision.models.family import Family, isotropic
from mlpvision.models.naming import CONV, DENSE, MLP, NORM, Leaf, Table

_INIT = nn.initializers.normal(0.02)


class FFBlock(nn.Module):
  """Pre-norm MLP over channels, then pre-norm MLP over tokens (official code); [B, S, C] -> [B, S, C].

  Unlike in a Mixer block, channels come first, and the second norm is over the token axis.
  """

  mlp_ratio: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, drop_path: layers.DropPath) -> jax.Array:
    norm = dict(epsilon=1e-6, dtype=self.dtype)

    def mlp(y, name):
      hidden_dim = int(y.shape[-1] * self.mlp_ratio)
      return layers.Mlp(hidden_dim, self.dropout, kernel_init=_INIT, dtype=self.dtype, name=name)(y, train)

    x = x + drop_path(mlp(layers.LayerNorm(**norm, name="norm1")(x), "channel_mixing"), 0)
    y = layers.LayerNorm(**norm, name="norm2")(x.swapaxes(1, 2))
    return x + drop_path(mlp(y, "token_mixing").swapaxes(1, 2), 1)


class FF(base.Backbone):
  """FF. The token MLPs fix the number of patches, so parameters are for one image size. Uses a class token.

  Attributes, in addition to those of every `Backbone`:
    patch_size, num_blocks, hidden_dim: the official code's patch_size, depth, embed_dim.
    mlp_ratio: hidden width of an MLP / width of its input; the token MLPs of 14x14 patches have 4 * 197 = 788.
    dropout: also after the position embedding.

  The position embedding has the grid of the images' patches. The official code interpolates a 14x14 embedding in all
  variants. This differs only in the large variant (7x7 patches), for which no weights were released.
  """

  patch_size: int = 16
  num_blocks: int = 12
  hidden_dim: int = 768
  mlp_ratio: float = 4.0

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> base.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]."""
    x = base.patch_embed(images, self.patch_size, self.hidden_dim, dtype=self.dtype)
    batch, rows, columns, channels = x.shape
    self.check_patches(_patches, rows, columns)
    x = x + self.param("pos_embedding", _INIT, (1, rows, columns, channels)).astype(self.dtype)
    cls = self.param("cls_token", _INIT, (1, 1, channels)) + self.param("cls_pos_embedding", _INIT, (1, 1, channels))
    cls = jnp.broadcast_to(cls.astype(self.dtype), (batch, 1, channels))
    x = jnp.concatenate([cls, x.reshape(batch, rows * columns, channels)], axis=1)
    x = layers.Dropout(self.dropout)(x, train)
    for i, drop_path in enumerate(self.drop_paths(x.shape[0], train)):
      x = self.block(FFBlock, f"block_{i}")(x, train, drop_path)
    x = layers.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
    if return_features:
      return (x[:, 1:].reshape(batch, rows, columns, channels),)
    return base.classify(x[:, 0], self.num_classes, kernel_init=_INIT)


VARIANTS = {
  "ff_tiny": dict(patch_size=16, num_blocks=12, hidden_dim=192),
  "ff_base": dict(patch_size=16, num_blocks=12, hidden_dim=768),
  "ff_large": dict(patch_size=32, num_blocks=24, hidden_dim=1024),
}


def _patches(_, shapes):
  return shapes["pos_embedding"][1:3]


_CHANNELS_LAST = (lambda a: a.transpose(0, 2, 3, 1), lambda a: a.transpose(0, 3, 1, 2))

_OFFICIAL = Table(
  "official",
  (
    ("", "", (Leaf("cls_token", "cls_token"),)),
    ("pos_encoding", "", (Leaf("cls_pos_embed", "cls_pos_embedding"),)),
    ("pos_encoding", "", (Leaf("pos_embed", "pos_embedding", *_CHANNELS_LAST),)),
    ("patch_embed.proj", "stem", CONV),
    ("blocks.{i}.norm1", "block_{i}/norm1", NORM),
    ("blocks.{i}.mlp1", "block_{i}/channel_mixing", MLP),
    ("blocks.{i}.norm2", "block_{i}/norm2", NORM),
    ("blocks.{i}.mlp2", "block_{i}/token_mixing", MLP),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

FAMILY = Family(FF, VARIANTS, isotropic, patches=_patches, tables=(_OFFICIAL,))
