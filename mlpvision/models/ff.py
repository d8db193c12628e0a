"""FF (Melas-Kyriazi, "Do You Even Need Attention?", arXiv 2105.02723): a ViT with MLPs over the tokens for attention.

After the official implementation (lukemelas/do-you-even-need-attention).
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import layers, norms, remat

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


class FF(nn.Module):
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

  @property
  def feature_strides(self) -> tuple[int, ...]:
    """Image pixels per position, for each map of `features`."""
    return (self.patch_size,)

  def features(self, images: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
    """The final token map after the last norm, without class token, as the 1-tuple ([B, H/p, W/p, hidden_dim],)."""
    return self(images, train=train, return_features=True)

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool = False, return_features: bool = False
  ) -> jax.Array | tuple[jax.Array, ...]:
    """images: float [B, H, W, 3], normalised -> float32 logits [B, num_classes]."""
    fan_in = images.shape[-1] * self.patch_size**2
    init = dict(kernel_init=layers.torch_kernel_init, bias_init=layers.torch_bias_init(fan_in))
    x = layers.patch_embed(images, self.patch_size, self.hidden_dim, **init, dtype=self.dtype, name="stem")
    batch, rows, columns, channels = x.shape
    self._check_grid(rows, columns)
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

  def _check_grid(self, rows, columns):
    if not self.has_variable("params", "pos_embedding"):
      return
    expected = self.get_variable("params", "pos_embedding").shape[1:3]
    if (rows, columns) != expected:
      raise ValueError(
        f"these FF parameters are for {expected[0]}x{expected[1]} patches of {self.patch_size}x{self.patch_size}"
        f" pixels, the images have {rows}x{columns}: FF works at the image size it was trained at"
      )


VARIANTS = {
  "ff_tiny": dict(patch_size=16, num_blocks=12, hidden_dim=192),
  "ff_base": dict(patch_size=16, num_blocks=12, hidden_dim=768),
  "ff_large": dict(patch_size=32, num_blocks=24, hidden_dim=1024),
}
