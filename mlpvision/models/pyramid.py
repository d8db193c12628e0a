"""Four maps at strides 4, 8, 16 and 32 for a head, from the maps of any backbone."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import canvas, forms, layers
from mlpvision.models.naming import KERNEL, NORM, SCALE

STRIDES = (4, 8, 16, 32)
ROWS = (
  ("backbone.norm{i}", "pyramid/norm{i}", NORM),  # names in weights of mmsegmentation and mmdetection
  # What only backbones with one map have, in our own names.
  ("pyramid.up{i}_{s}", "pyramid/up{i}_{s}", KERNEL),
  ("pyramid.up{i}_norm{s}", "pyramid/up{i}_norm{s}", SCALE),
)
_NORMS = {"layer": lambda **options: layers.LayerNorm(epsilon=1e-5, **options), "group": layers.GroupNorm1}


class Pyramid(nn.Module):
  """Maps of a backbone -> four maps, each through its own norm, `norm0` to `norm3`.

  A pyramid of stages has these strides, so that only the norms are added, as in Swin's and AS-MLP's detection and
  segmentation code. Of one map, ViTDet's simple feature pyramid is made (arXiv 2203.16527, Sec. 3): transposed 2x2
  convolutions with stride 2 to lower strides, each halving the channels, with layer norm and GELU between; max pooling
  to higher ones. Width and order are those of ViTDet's code, without its convolutions after them, which heads have.

  Attributes:
    strides: the backbone's `feature_strides`.
    norm: the backbone's `map_norm`, "layer" or "group".
    dtype: of the computation.
  """

  strides: tuple[int, ...]
  norm: str = "layer"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: tuple[jax.Array, ...], sizes: jax.Array | None = None) -> tuple[jax.Array, ...]:
    """maps: `Backbone.features` of images; sizes: those of the same call.

    Returns:
      Four maps [B, H / stride, W / stride, C of the map], of images padded to whole patches. With sizes, they are zero
      beyond an image's ceil(size / stride) rows and columns.

    Raises:
      ValueError: no pyramid can be made from these strides.
    """
    check(self.strides)
    if len(maps) == 1:
      maps = [self._resampled(maps[0], i, canvas.cells(sizes, self.strides[0])) for i in range(len(STRIDES))]
    return tuple(self._normed(x, i, canvas.cells(sizes, STRIDES[i])) for i, x in enumerate(maps))

  def _normed(self, x, i, cells):
    norm = _NORMS[self.norm](dtype=self.dtype, name=f"norm{i}")
    x = norm(x, canvas.mask(x.shape, cells)) if self.norm == "group" else norm(x)
    return canvas.masked(x, cells)

  def _resampled(self, x, i, cells):
    ratio = self.strides[0] / STRIDES[i]
    if ratio < 1:
      side = round(1 / ratio)
      x = x if cells is None else jnp.where(canvas.mask(x.shape, cells), x, -jnp.inf)
      x = nn.max_pool(x, (side, side), (side, side), [(0, -size % side) for size in x.shape[1:3]])
      return canvas.masked(x, canvas.cells(cells, side))  # a norm of -inf would be NaN
    for step in range(round(ratio).bit_length() - 1):
      if step:
        x = forms.gelu(layers.LayerNorm(dtype=self.dtype, name=f"up{i}_norm{step}")(x))
      x = Upsampling(x.shape[-1] // 2, self.dtype, name=f"up{i}_{step}")(x)
    return x


def check(strides: tuple[int, ...]) -> None:
  """Raises ValueError if `Pyramid` cannot make maps at strides 4, 8, 16 and 32 from maps at these strides."""
  if strides != STRIDES and not (len(strides) == 1 and strides[0] in STRIDES):
    found = " and ".join(map(str, strides))
    raise ValueError(
      f"a backbone with stride {found} gives no feature pyramid: its maps must have strides 4, 8, 16 and 32, as with"
      " four stages and patch_size 4, or it must have one map with one of these strides (its patch_size)"
    )


class Upsampling(nn.Module):
  """A transposed 2x2 convolution with stride 2; [B, H, W, C] -> [B, 2H, 2W, features].

  The 2x2 outputs of a position depend on it alone, so this is one matrix product; `kernel` is [C, 2, 2, features].
  """

  features: int
  dtype: Any = jnp.float32
  kernel_init: Any = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2, 3))

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    kernel = self.param("kernel", self.kernel_init, (channels, 2, 2, self.features)).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(self.dtype)
    x = jnp.einsum("bhwc,cyxf->bhywxf", x, kernel).reshape(batch, 2 * height, 2 * width, self.features)
    return x + bias
