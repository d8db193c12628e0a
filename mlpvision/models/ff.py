"""FF (Melas-Kyriazi, "Do You Even Need Attention?", arXiv 2105.02723): a ViT with MLPs over the tokens for attention.

After the official implementation (lukemelas/do-you-even-need-attention).
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import layers, norms, remat
from mlpvision.models.family import Family, isotropic
from mlpvision.models.naming import CONV, DENSE, NORM, Leaf, Table

_INIT = nn.initializers.normal(0.02)


class FFBlock(nn.Module):
  """Pre-norm MLP over channels, then pre-norm MLP over tokens (official code); [B, S, C] -> [B, S, C].

  Against a Mixer block: the other order, and the second norm is over the token axis.
  """

  mlp_ratio: float
  drop_path: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = dict(epsilon=1e-6, dtype=self.dtype)
    drop_path = layers.DropPath(self.drop_path)

    def mlp(y, name):
      hidden_dim = int(y.shape[-1] * self.mlp_ratio)
      return layers.Mlp(hidden_dim, self.dropout, kernel_init=_INIT, dtype=self.dtype, name=name)(y, train)

    x = x + drop_path(mlp(norms.LayerNorm(**norm, name="norm1")(x), "channel_mixing"), train)
    y = norms.LayerNorm(**norm, name="norm2")(x.swapaxes(1, 2))
    return x + drop_path(mlp(y, "token_mixing").swapaxes(1, 2), train)


class FF(layers.Backbone):
  """FF. The token MLPs fix the number of patches, so a set of parameters serves one image size.

  Attributes:
    num_classes: width of the head; None gives the class token's features [B, hidden_dim] instead of logits.
    patch_size, num_blocks, hidden_dim: the official code's patch_size, depth, embed_dim.
    mlp_ratio: hidden width of both MLPs over their input's, so 4 * 197 = 788 over the tokens of 14x14 patches.
    drop_path: stochastic depth of the last block, linear from 0; the same rate for both halves of a block.
    dropout: after the position embedding and both layers of every MLP.
    remat: what the backward pass computes again: "none", "block" or "preactivations", see `remat.wrap`.
    dtype: of the computation; parameters and logits are float32.

  The position embedding has the images' own grid of patches. The official code gives every variant a 14x14 one and
  interpolates it, which differs for the large variant only (7x7 patches), whose weights were never released.
  """

  num_classes: int | None = 1000
  patch_size: int = 16
  num_blocks: int = 12
  hidden_dim: int = 768
  mlp_ratio: float = 4.0
  drop_path: float = 0.0
  dropout: float = 0.0
  remat: str = "none"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> layers.Outputs:
    """images: float [B, H, W, 3], normalised -> float32 logits [B, num_classes]."""
    x = layers.patch_embed(images, self.patch_size, self.hidden_dim, dtype=self.dtype)
    batch, rows, columns, channels = x.shape
    self.check_patches(_patches, rows, columns)
    x = x + self.param("pos_embedding", _INIT, (1, rows, columns, channels)).astype(self.dtype)
    cls = self.param("cls_token", _INIT, (1, 1, channels)) + self.param("cls_pos_embedding", _INIT, (1, 1, channels))
    cls = jnp.broadcast_to(cls.astype(self.dtype), (batch, 1, channels))
    x = jnp.concatenate([cls, x.reshape(batch, rows * columns, channels)], axis=1)
    x = layers.Dropout(self.dropout)(x, train)
    block = remat.wrap(FFBlock, self.remat)
    for i, rate in enumerate(layers.drop_path_rates(self.drop_path, self.num_blocks)):
      x = block(
        mlp_ratio=self.mlp_ratio,
        drop_path=rate,
        dropout=self.dropout,
        dtype=self.dtype,
        name=f"block_{i}",
      )(x, train)
    x = norms.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
    if return_features:
      return (x[:, 1:].reshape(batch, rows, columns, channels),)
    return layers.classify(x[:, 0], self.num_classes, kernel_init=_INIT)


VARIANTS = {
  "ff_tiny": dict(patch_size=16, num_blocks=12, hidden_dim=192),
  "ff_base": dict(patch_size=16, num_blocks=12, hidden_dim=768),
  "ff_large": dict(patch_size=32, num_blocks=24, hidden_dim=1024),
}


def _patches(shapes):
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
    ("blocks.{i}.mlp1.fc1", "block_{i}/channel_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp1.fc2", "block_{i}/channel_mixing/Dense_1", DENSE),
    ("blocks.{i}.norm2", "block_{i}/norm2", NORM),
    ("blocks.{i}.mlp2.fc1", "block_{i}/token_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp2.fc2", "block_{i}/token_mixing/Dense_1", DENSE),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

FAMILY = Family(FF, VARIANTS, isotropic, patches=_patches, tables=(_OFFICIAL,))
