"""Swin Transformer (Liu et al., arXiv 2103.14030); follows the official implementation and timm."""

from typing import Any, ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import base, canvas, layers
from mlpvision.models.attention import Attention
from mlpvision.models.family import Family, pyramid
from mlpvision.models.naming import CONV, DENSE, MLP, NORM, Leaf, Table

_INIT = nn.initializers.normal(0.02)
WINDOW_PADDINGS = ("after_shift", "before_shift")


class SwinBlock(nn.Module):
  """x + WindowAttention(norm(x)), then x + MLP(norm(x)) (Sec. 3.2, Eq. 3); [B, H, W, C] -> [B, H, W, C].

  shifted: the windows are shifted cyclically, down and right by half a window (Fig. 4).
  window_padding: see `Swin`. After the norm, zeros pad the map to whole windows; as in the originals, attention
    includes the padding.
  cells: valid rows and columns of x, see `canvas`.
  """

  num_heads: int
  window_size: int
  window_padding: str
  shifted: bool
  mlp_ratio: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, drop_path: layers.DropPath, cells: jax.Array | None = None
  ) -> jax.Array:
    norm = dict(epsilon=1e-5, dtype=self.dtype)
    y = canvas.masked(layers.LayerNorm(**norm, name="norm1")(x), cells)
    x = x + drop_path(self._attend(y, train, cells), 0)
    y = layers.LayerNorm(**norm, name="norm2")(x)
    mlp = dict(dropout=self.dropout, kernel_init=_INIT, dtype=self.dtype, name="channel_mixing")
    return x + drop_path(layers.Mlp(int(x.shape[-1] * self.mlp_ratio), **mlp)(y, train), 1)

  def _attend(self, x, train, cells):
    map_size, before = x.shape[1:3], self.window_padding == "before_shift"
    window = tuple(self.window_size if before else min(size, self.window_size) for size in map_size)
    is_shifted = [self.shifted and (before or size > w) for size, w in zip(map_size, window, strict=True)]
    shift = tuple(w // 2 if s else 0 for s, w in zip(is_shifted, window, strict=True))
    padded_size = [size + -size % w for size, w in zip(map_size, window, strict=True)]
    table_size = 2 * self.window_size - 1
    table = self.param("relative_position_bias", _INIT, (table_size, table_size, self.num_heads))
    bias = _relative_position_bias(table, window)
    if before:
      x = canvas.padded(x, window)
    if any(shift):
      bias = bias + _region_mask(padded_size, window, shift, cells)
      x = jnp.roll(x, (-shift[0], -shift[1]), (1, 2))
    x = canvas.padded(x, window)
    attention = Attention(self.num_heads, self.dropout, _INIT, self.dtype, name="attention")
    x = _from_windows(attention(_to_windows(x, window), train, bias), window, padded_size)
    if before:
      return jnp.roll(x, shift, (1, 2))[:, : map_size[0], : map_size[1]]
    return jnp.roll(x[:, : map_size[0], : map_size[1]], shift, (1, 2))


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


def _region_mask(map_size, window, shift, cells):
  """[number of windows, 1, N, N]: -100 for two positions that only the cyclic shift put in one window, 0 otherwise.

  With cells [B, 2], [B, number of windows, 1, N, N]: the map of an example also ends where its last whole window ends.
  """

  def region(size, w, s):
    position = jnp.arange(size)
    return jnp.where(position < size - w, 0, jnp.where(position < size - s, 1, 2)) if s else 0 * position

  rows, columns = map(region, map_size, window, shift)
  regions = (3 * rows[:, None] + columns)[None, :, :, None]
  if cells is None:
    regions = _to_windows(regions, window)[0]
    return jnp.where(regions == regions.swapaxes(1, 2), 0.0, -100.0)[:, None]
  ends = canvas.cells(cells, jnp.asarray(window)) * jnp.asarray(window)
  outside = jnp.roll(~canvas.mask((1, *map_size, 1), ends), (-shift[0], -shift[1]), (1, 2))
  regions = _to_windows(jnp.where(outside, 9, regions), window)
  return jnp.where(regions == regions.swapaxes(2, 3), 0.0, -100.0)[:, :, None]


class PatchMerging(nn.Module):
  """Halves the map, doubles the channels (Sec. 3.1); [B, H, W, C] -> [B, H/2, W/2, 2C], odd sides zero-padded by 1."""

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, cells: jax.Array | None = None) -> jax.Array:
    x = canvas.padded(canvas.masked(x, cells), 2)
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    # The original order of the four neighbors (row, column): even-even, odd-even, even-odd, odd-odd.
    x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)
    x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
    dense = dict(use_bias=False, kernel_init=_INIT, dtype=self.dtype)
    return layers.Dense(2 * channels, **dense, name="reduction")(x)


class Swin(base.Backbone):
  """Swin Transformer, a pyramid of four stages; logits are for image sides that patch_size divides.

  Attributes, in addition to those of every `Backbone`:
    patch_size: 4 in all variants.
    hidden_dim: channels of the first stage (the paper's C); each stage doubles them.
    depths: blocks per stage; every second block has shifted windows.
    num_heads: per stage.
    window_size: side of the attention windows; 7 for 224 pixels, 12 for 384.
    window_padding: how windows cover a map that they do not divide. "after_shift", as in timm: zeros pad the map after
      the cyclic shift, and along an axis no longer than the window, the window shrinks to the map and is not shifted.
      "before_shift", as in the official detection and segmentation code: zeros pad the map before the shift, windows
      keep their size, and those of every second block are always shifted. `features` with `sizes` requires it.
    mlp_ratio: hidden width of the MLPs / channels.
    dropout: also after the patch embedding and the projection of the attention; 0 in the paper.

  A window that shrinks to a small map uses the center of its table of biases; timm's table is smaller there.
  """

  any_size: ClassVar[bool] = True

  patch_size: int = 4
  hidden_dim: int = 96
  depths: tuple[int, ...] = (2, 2, 6, 2)
  num_heads: tuple[int, ...] = (3, 6, 12, 24)
  window_size: int = 7
  window_padding: str = "after_shift"
  mlp_ratio: float = 4.0

  @property
  def size_divisor(self) -> int:
    """The patch size, because odd maps are padded."""
    return self.patch_size

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
    if len(self.num_heads) != len(self.depths):
      raise ValueError(f"num_heads {self.num_heads} and depths {self.depths} must have one entry per stage")
    if self.window_padding not in WINDOW_PADDINGS:
      raise ValueError(f"unknown window_padding {self.window_padding!r}; one of {', '.join(WINDOW_PADDINGS)}")
    if sizes is not None and self.window_padding != "before_shift":
      raise ValueError("Swin's features with sizes require window_padding='before_shift'")
    x = base.patch_embed(canvas.masked(images, sizes), self.patch_size, self.hidden_dim, dtype=self.dtype)
    x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="stem_norm")(x)
    x = layers.Dropout(self.dropout)(x, train)
    cells = canvas.cells(sizes, self.patch_size)
    drop_paths = iter(self.drop_paths(images.shape[0], train))
    maps = []
    for stage, depth in enumerate(self.depths):
      if stage:
        x = PatchMerging(self.dtype, name=f"merge_{stage - 1}")(x, cells)
        cells = canvas.cells(cells, 2)
      for i in range(depth):
        options = dict(num_heads=self.num_heads[stage], shifted=i % 2 == 1)
        x = self.block(SwinBlock, f"stage_{stage}_block_{i}", **options)(x, train, next(drop_paths), cells)
      maps.append(x)
    if return_features:
      return tuple(maps)
    x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
    return base.classify(x.mean((1, 2)), self.num_classes, kernel_init=_INIT)


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

FAMILY = Family(
  Swin,
  VARIANTS,
  _arguments,
  block=_BLOCK,
  dense=dict(window_padding="before_shift"),
  free=("window_padding",),
  tables=_TABLES,
)
