"""Swin Transformer (Liu et al., arXiv 2103.14030); follows the official implementation and timm."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import layers
from mlpvision.models.family import Family, pyramid
from mlpvision.models.naming import CONV, DENSE, MLP, NORM, Leaf, Table

_INIT = nn.initializers.normal(0.02)


class SwinBlock(nn.Module):
  """x + WindowAttention(norm(x)), then x + MLP(norm(x)) (Sec. 3.2, Eq. 3); [B, H, W, C] -> [B, H, W, C].

  shifted: the windows are shifted cyclically, down and right by half a window (Fig. 4).

  Along an axis no longer than the window, the window shrinks to the map and is not shifted. Otherwise, zeros pad the
  map to whole windows after the norm; as in the original, attention includes the padding.
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
    x = x + drop_path(self._attend(layers.LayerNorm(**norm, name="norm1")(x), train), train)
    y = layers.LayerNorm(**norm, name="norm2")(x)
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
  """[heads, N, N] from a table [2M - 1, 2M - 1, heads] of offsets query - key, 0 at its center (Sec. 3.2)."""

  def index(size):
    position = jnp.arange(size)
    return position[:, None] - position + table.shape[0] // 2

  rows, columns = (index(size) for size in window)
  bias = table[rows[:, None, :, None], columns[None, :, None, :]]
  tokens = window[0] * window[1]
  return bias.reshape(tokens, tokens, -1).transpose(2, 0, 1)


def _region_mask(map_size, window, shift):
  """[number of windows, 1, N, N]: -100 for two positions that only the cyclic shift put in one window, 0 otherwise."""

  def region(size, w, s):
    position = jnp.arange(size)
    return jnp.where(position < size - w, 0, jnp.where(position < size - s, 1, 2)) if s else 0 * position

  rows, columns = map(region, map_size, window, shift)
  regions = _to_windows((3 * rows[:, None] + columns)[None, :, :, None], window)[0]
  return jnp.where(regions == regions.swapaxes(1, 2), 0.0, -100.0)[:, None]


class PatchMerging(nn.Module):
  """Halves the map, doubles the channels (Sec. 3.1); [B, H, W, C] -> [B, H/2, W/2, 2C], odd sides zero-padded by 1."""

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    # The original order of the four neighbors (row, column): even-even, odd-even, even-odd, odd-odd.
    x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)
    x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
    dense = dict(use_bias=False, kernel_init=_INIT, dtype=self.dtype)
    return layers.Dense(2 * channels, **dense, name="reduction")(x)


class Swin(layers.Backbone):
  """Swin Transformer, a pyramid of four stages, for any image size that patch_size divides.

  Attributes, in addition to those of every `Backbone`:
    patch_size: 4 in all variants.
    hidden_dim: channels of the first stage (the paper's C); each stage doubles them.
    depths: blocks per stage; every second block has shifted windows.
    num_heads: per stage.
    window_size: side of the attention windows; 7 for 224 pixels, 12 for 384.
    mlp_ratio: hidden width of the MLPs / channels.
    dropout: also after the patch embedding and the projection of the attention; 0 in the paper.

  A window that shrinks to a small map uses the center of its table of biases; timm's table is smaller there.
  """

  patch_size: int = 4
  hidden_dim: int = 96
  depths: tuple[int, ...] = (2, 2, 6, 2)
  num_heads: tuple[int, ...] = (3, 6, 12, 24)
  window_size: int = 7
  mlp_ratio: float = 4.0

  @property
  def size_divisor(self) -> int:
    """The patch size, because odd maps are padded."""
    return self.patch_size

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> layers.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]."""
    if len(self.num_heads) != len(self.depths):
      raise ValueError(f"num_heads {self.num_heads} and depths {self.depths} must have one entry per stage")
    x = layers.patch_embed(images, self.patch_size, self.hidden_dim, dtype=self.dtype)
    x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="stem_norm")(x)
    x = layers.Dropout(self.dropout)(x, train)
    rates = iter(layers.drop_path_rates(self.drop_path, sum(self.depths)))
    maps = []
    for stage, depth in enumerate(self.depths):
      if stage:
        x = PatchMerging(self.dtype, name=f"merge_{stage - 1}")(x)
      for i in range(depth):
        options = dict(num_heads=self.num_heads[stage], shifted=i % 2 == 1, drop_path=next(rates))
        x = self.block(SwinBlock, f"stage_{stage}_block_{i}", **options)(x, train)
      maps.append(x)
    if return_features:
      return tuple(maps)
    x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
    return layers.classify(x.mean((1, 2)), self.num_classes, kernel_init=_INIT)


_TINY = dict(hidden_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))
_SMALL = dict(hidden_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24))
_BASE = dict(hidden_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))

# swin_mobile is from AS-MLP's appendix B (arXiv 2107.08391).
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


def _load_biases(array):
  side = round(len(array) ** 0.5)
  return array.reshape(side, side, -1)


def _save_biases(array):
  return array.reshape(-1, array.shape[-1])


_THEIRS, _BLOCK = "layers.{s}.blocks.{i}", "stage_{s}_block_{i}"
_BIASES = Leaf("attn.relative_position_bias_table", "relative_position_bias", _load_biases, _save_biases)


def _names(name, merging, head):
  """Patch merging belongs to the end of a stage in the official code, to the start of the next stage in timm."""
  return Table(
    name,
    (
      ("patch_embed.proj", "stem", CONV),
      ("patch_embed.norm", "stem_norm", NORM),
      (f"{_THEIRS}.norm1", f"{_BLOCK}/norm1", NORM),
      (_THEIRS, _BLOCK, (_BIASES,)),
      (f"{_THEIRS}.attn.qkv", f"{_BLOCK}/attention/qkv", DENSE),
      (f"{_THEIRS}.attn.proj", f"{_BLOCK}/attention/proj", DENSE),
      (f"{_THEIRS}.norm2", f"{_BLOCK}/norm2", NORM),
      (f"{_THEIRS}.mlp", f"{_BLOCK}/channel_mixing", MLP),
      (f"{merging}.downsample.norm", "merge_{s}/norm", NORM),
      (f"{merging}.downsample.reduction", "merge_{s}/reduction", DENSE),
      ("norm", "norm", NORM),
      (head, "head", DENSE),
    ),
    ignore=r"relative_position_index$|attn_mask$",  # follow from the window size
  )


_TABLES = (_names("timm", "layers.{s+1}", "head.fc"), _names("official", "layers.{s}", "head"))

FAMILY = Family(Swin, VARIANTS, _arguments, block=_BLOCK, tables=_TABLES)
