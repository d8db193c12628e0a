"""Swin Transformer (Liu et al., arXiv 2103.14030), after the official implementation and timm's form of it."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import layers, norms, remat
from mlpvision.models.family import Family, pyramid
from mlpvision.models.naming import CONV, DENSE, NORM, Leaf, Table

_INIT = nn.initializers.normal(0.02)


class SwinBlock(nn.Module):
  """x + WindowAttention(norm(x)), then x + MLP(norm(x)) (Sec. 3.2, Eq. 3); [B, H, W, C] -> [B, H, W, C].

  shifted: the windows lie half a window further down and right, cyclically (Fig. 4).

  Along an axis that the window covers whole, the window shrinks to the map and is not shifted. Other maps are padded
  with zeros to whole windows after the norm; the padding takes part in the attention, as in the original.
  """

  num_heads: int
  window_size: int
  shifted: bool
  mlp_ratio: float
  drop_path: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = dict(epsilon=1e-5, dtype=self.dtype)
    drop_path = layers.DropPath(self.drop_path)
    x = x + drop_path(self._attend(norms.LayerNorm(**norm, name="norm1")(x), train), train)
    y = norms.LayerNorm(**norm, name="norm2")(x)
    mlp = dict(dropout=self.dropout, kernel_init=_INIT, dtype=self.dtype, name="channel_mixing")
    return x + drop_path(layers.Mlp(int(x.shape[-1] * self.mlp_ratio), **mlp)(y, train), train)

  def _attend(self, x, train):
    map_size = x.shape[1:3]
    window = tuple(min(size, self.window_size) for size in map_size)
    shift = tuple(w // 2 if self.shifted and size > w else 0 for size, w in zip(map_size, window, strict=True))
    padding = tuple(-size % w for size, w in zip(map_size, window, strict=True))
    table_size = 2 * self.window_size - 1
    table = self.param("relative_position_bias", _INIT, (table_size, table_size, self.num_heads))
    bias = _relative_position_bias(table, window)
    if any(shift):
      bias = bias + _region_mask([size + p for size, p in zip(map_size, padding, strict=True)], window, shift)
      x = jnp.roll(x, (-shift[0], -shift[1]), (1, 2))
    x = jnp.pad(x, ((0, 0), (0, padding[0]), (0, padding[1]), (0, 0)))
    padded_size = x.shape[1:3]
    attention = layers.Attention(self.num_heads, self.dropout, _INIT, self.dtype, name="attention")
    x = attention(_to_windows(x, window), train, bias)
    x = _from_windows(x, window, padded_size)[:, : map_size[0], : map_size[1]]
    return jnp.roll(x, shift, (1, 2))


def _to_windows(x, window):
  """[B, H, W, C] -> [B, number of windows, tokens of a window, C], both in row-major order."""
  (batch, height, width, channels), (h, w) = x.shape, window
  x = x.reshape(batch, height // h, h, width // w, w, channels).swapaxes(2, 3)
  return x.reshape(batch, -1, h * w, channels)


def _from_windows(x, window, map_size):
  """The inverse of `_to_windows`."""
  (height, width), (h, w) = map_size, window
  x = x.reshape(x.shape[0], height // h, width // w, h, w, x.shape[-1]).swapaxes(2, 3)
  return x.reshape(x.shape[0], height, width, x.shape[-1])


def _relative_position_bias(table, window):
  """[heads, N, N] from a table [2M - 1, 2M - 1, heads] by offset (query - key), zero in its middle (Sec. 3.2)."""

  def index(size):
    position = jnp.arange(size)
    return position[:, None] - position + table.shape[0] // 2

  rows, columns = (index(size) for size in window)
  bias = table[rows[:, None, :, None], columns[None, :, None, :]]
  tokens = window[0] * window[1]
  return bias.reshape(tokens, tokens, -1).transpose(2, 0, 1)


def _region_mask(map_size, window, shift):
  """[number of windows, 1, N, N]: -100 between positions that only the cyclic shift brought together, else 0."""

  def region(size, w, s):
    position = jnp.arange(size)
    return jnp.where(position < size - w, 0, jnp.where(position < size - s, 1, 2)) if s else 0 * position

  rows, columns = map(region, map_size, window, shift)
  regions = _to_windows((3 * rows[:, None] + columns)[None, :, :, None], window)[0]
  return jnp.where(regions == regions.swapaxes(1, 2), 0.0, -100.0)[:, None]


class PatchMerging(nn.Module):
  """Halves the map, doubles the channels (Sec. 3.1); [B, H, W, C] -> [B, H/2, W/2, 2C], odd sides padded by a zero."""

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    # Original order of the four neighbours (row, column): even-even, odd-even, even-odd, odd-odd.
    x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)
    x = norms.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
    dense = dict(use_bias=False, kernel_init=_INIT, dtype=self.dtype)
    return layers.Dense(2 * channels, **dense, name="reduction")(x)


class Swin(layers.Backbone):
  """Swin Transformer, a pyramid of four stages; any image size that the patch divides, with the same parameters.

  Attributes:
    num_classes: width of the head; None gives the pooled features [B, 8C] instead of logits.
    patch_size: 4 in all variants.
    hidden_dim: channels of the first stage (the paper's C); doubled by every further stage.
    depths: blocks per stage; every second one has shifted windows.
    num_heads: per stage.
    window_size: side of the attention windows; 7 for 224 pixels, 12 for 384.
    mlp_ratio: hidden width of the MLPs over the channels.
    drop_path: stochastic depth of the last block, linear from 0 over all blocks.
    dropout: after the patch embedding, the attention's projection and both layers of every MLP; 0 in the paper.
    remat: what the backward pass computes again: "none", "block" or "preactivations", see `remat.wrap`.
    dtype: of the computation; parameters and logits are float32.

  Where a window shrinks to a small map, the middle of its table of biases is used; timm makes the table smaller there.
  """

  num_classes: int | None = 1000
  patch_size: int = 4
  hidden_dim: int = 96
  depths: tuple[int, ...] = (2, 2, 6, 2)
  num_heads: tuple[int, ...] = (3, 6, 12, 24)
  window_size: int = 7
  mlp_ratio: float = 4.0
  drop_path: float = 0.0
  dropout: float = 0.0
  remat: str = "none"
  dtype: Any = jnp.float32

  @property
  def size_divisor(self) -> int:
    """The patch size: odd maps are padded."""
    return self.patch_size

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> layers.Outputs:
    """images: float [B, H, W, 3], normalised -> float32 logits [B, num_classes]."""
    if len(self.num_heads) != len(self.depths):
      raise ValueError(f"num_heads {self.num_heads} and depths {self.depths} must have one entry per stage")
    x = layers.patch_embed(images, self.patch_size, self.hidden_dim, dtype=self.dtype)
    x = norms.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="stem_norm")(x)
    x = layers.Dropout(self.dropout)(x, train)
    block = remat.wrap(SwinBlock, self.remat)
    rates = iter(layers.drop_path_rates(self.drop_path, sum(self.depths)))
    maps = []
    for stage, depth in enumerate(self.depths):
      if stage:
        x = PatchMerging(self.dtype, name=f"merge_{stage - 1}")(x)
      for i in range(depth):
        x = block(
          num_heads=self.num_heads[stage],
          window_size=self.window_size,
          shifted=i % 2 == 1,
          mlp_ratio=self.mlp_ratio,
          drop_path=next(rates),
          dropout=self.dropout,
          dtype=self.dtype,
          name=f"stage_{stage}_block_{i}",
        )(x, train)
      maps.append(x)
    if return_features:
      return tuple(maps)
    x = norms.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
    return layers.classify(x.mean((1, 2)), self.num_classes, kernel_init=_INIT)


_TINY = dict(hidden_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))
_SMALL = dict(hidden_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24))
_BASE = dict(hidden_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))

# The mobile one is from AS-MLP's appendix B (arXiv 2107.08391).
VARIANTS = {
  "swin_tiny": _TINY,
  "swin_small": _SMALL,
  "swin_base": _BASE,
  "swin_mobile": dict(hidden_dim=64, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16)),
  "swin_tiny_384": dict(**_TINY, window_size=12),
  "swin_small_384": dict(**_SMALL, window_size=12),
  "swin_base_384": dict(**_BASE, window_size=12),
}


def _arguments(shapes):
  arguments = pyramid(shapes)
  tables = [shapes[f"stage_{stage}_block_0/relative_position_bias"] for stage in range(len(arguments["depths"]))]
  window_size = (tables[0][0] + 1) // 2
  return dict(**arguments, num_heads=tuple(heads for _, _, heads in tables), window_size=window_size)


def _bias_table_in(array):
  side = round(len(array) ** 0.5)
  return array.reshape(side, side, -1)


_THEIRS, _BLOCK = "layers.{s}.blocks.{i}", "stage_{s}_block_{i}"
_BIAS_TABLE = Leaf(
  "attn.relative_position_bias_table",
  "relative_position_bias",
  _bias_table_in,
  lambda array: array.reshape(-1, array.shape[-1]),
)


def _names(name, merging, head):
  """The official code ends a stage with its patch merging, timm starts the next one with it."""
  return Table(
    name,
    (
      ("patch_embed.proj", "stem", CONV),
      ("patch_embed.norm", "stem_norm", NORM),
      (f"{_THEIRS}.norm1", f"{_BLOCK}/norm1", NORM),
      (_THEIRS, _BLOCK, (_BIAS_TABLE,)),
      (f"{_THEIRS}.attn.qkv", f"{_BLOCK}/attention/qkv", DENSE),
      (f"{_THEIRS}.attn.proj", f"{_BLOCK}/attention/proj", DENSE),
      (f"{_THEIRS}.norm2", f"{_BLOCK}/norm2", NORM),
      (f"{_THEIRS}.mlp.fc1", f"{_BLOCK}/channel_mixing/Dense_0", DENSE),
      (f"{_THEIRS}.mlp.fc2", f"{_BLOCK}/channel_mixing/Dense_1", DENSE),
      (f"{merging}.downsample.norm", "merge_{s}/norm", NORM),
      (f"{merging}.downsample.reduction", "merge_{s}/reduction", DENSE),
      ("norm", "norm", NORM),
      (head, "head", DENSE),
    ),
    ignore=r"relative_position_index$|attn_mask$",  # follow from the window size
  )


FAMILY = Family(
  Swin,
  VARIANTS,
  _arguments,
  block=_BLOCK,
  tables=(_names("timm", "layers.{s+1}", "head.fc"), _names("official", "layers.{s}", "head")),
)
