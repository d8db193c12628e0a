"""AS-MLP (Lian et al., arXiv 2107.08391; ICLR 2022); follows the official implementation (svip-lab/AS-MLP)."""

from typing import Any, ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import base, canvas, forms, layers
from mlpvision.models.family import Family, pyramid
from mlpvision.models.naming import CONV, CONV1X1, DENSE, MLP_CONV1X1, NORM, Table
from mlpvision.models.shifted_product import shifted_product


def _dense(features, fan_in, dtype, name, **kwargs):
  # The official code initializes its convolutions with PyTorch's default.
  init = dict(kernel_init=layers.torch_kernel_init, bias_init=layers.torch_bias_init(fan_in))
  return layers.Dense(features, **init, dtype=dtype, name=name, **kwargs)


class AxialShift(nn.Module):
  """Channel projection, shift and projection along both axes, channel projection (Fig. 2, Algorithm 1).

  connection: "parallel" adds the horizontal and the vertical branch, as in the paper; "serial" applies the vertical
    branch to the result of the horizontal one, with the same norms and activations (the paper gives no details).
  cells: valid rows and columns of x, see `canvas`. The norms leave out the rest, and shifts move zeros in from there.
  """

  shift_size: int
  padding: str
  dilation: int
  connection: str
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, cells: jax.Array | None = None) -> jax.Array:
    channels = x.shape[-1]
    mask = canvas.mask(x.shape, cells)

    def shifted(y, axis, name):
      def product(y, kernel, *_, **__):
        options = dict(padding=self.padding, dilation=self.dilation)
        # Of the large maps of dense tasks, which have cells, a chip has one or two.
        return shifted_product(y, kernel, self.shift_size, axis, **options, few_images=cells is not None)

      return forms.gelu(_dense(channels, channels, self.dtype, name, dot_general=product)(canvas.masked(y, cells)))

    x = _dense(channels, channels, self.dtype, "conv1")(x)
    x = forms.gelu(layers.GroupNorm1(dtype=self.dtype, name="norm1")(x, mask))
    if self.connection == "parallel":
      x = shifted(x, 2, "conv2_1") + shifted(x, 1, "conv2_2")
    else:
      x = shifted(shifted(x, 2, "conv2_1"), 1, "conv2_2")
    x = layers.GroupNorm1(dtype=self.dtype, name="norm2")(x, mask)
    return _dense(channels, channels, self.dtype, "conv3")(x)


class ASBlock(nn.Module):
  """x + AxialShift(norm(x)), then x + MLP(norm(x)); [B, H, W, C] -> [B, H, W, C]."""

  mlp_ratio: float
  shift_size: int
  padding: str
  dilation: int
  connection: str
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, drop_path: layers.DropPath, cells: jax.Array | None = None
  ) -> jax.Array:
    mask = canvas.mask(x.shape, cells)
    y = layers.GroupNorm1(dtype=self.dtype, name="norm1")(x, mask)
    shift = AxialShift(self.shift_size, self.padding, self.dilation, self.connection, self.dtype, name="axial_shift")
    x = x + drop_path(shift(y, cells), 0)
    y = layers.GroupNorm1(dtype=self.dtype, name="norm2")(x, mask)
    hidden_dim = int(x.shape[-1] * self.mlp_ratio)
    init = dict(kernel_init=layers.torch_kernel_init, bias_init=layers.torch_bias_init)
    mlp = layers.Mlp(hidden_dim, self.dropout, **init, dtype=self.dtype, name="channel_mixing")
    return x + drop_path(mlp(y, train), 1)


class PatchMerging(nn.Module):
  """Halves the map, doubles the channels; [B, H, W, C] -> [B, H/2, W/2, 2C], odd sides zero-padded by 1.

  The original gathers four neighbors into 4C channels before the norm and the projection. Here they are not moved: the
  norm gives the same result on the map, and the projection is a product over neighbors and channels. The norm's
  statistics include the zeros that pad an odd map, as in the original segmentation code (AS-MLP-Semantic-Segmentation).
  """

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, cells: jax.Array | None = None) -> jax.Array:
    x = canvas.padded(canvas.masked(x, cells), 2)
    batch, height, width, channels = x.shape
    mask = canvas.mask((batch, height // 2, width // 2, 1), canvas.cells(cells, 2))
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)

    def of_neighbors(values):  # stored as [column, row, channel]: even-even, odd-even, even-odd, odd-odd (row, column)
      return values.reshape(2, 2, channels).swapaxes(0, 1)[:, None]

    mask = None if mask is None else mask[:, :, None, :, None]
    x = layers.GroupNorm1(4 * channels, of_neighbors, dtype=self.dtype, name="norm")(x, mask)
    return _Reduction(2 * channels, self.dtype, name="reduction")(x)


class _Reduction(nn.Module):
  """[B, H, 2, W, 2, C] -> [B, H, W, features]; the parameter `kernel` is [4C, features]."""

  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    kernel = self.param("kernel", layers.torch_kernel_init, (4 * channels, self.features))
    kernel = kernel.astype(self.dtype).reshape(2, 2, channels, self.features)
    return jnp.einsum("bhrwqc,qrcd->bhwd", x, kernel)


class ASMLP(base.Backbone):
  """AS-MLP, a pyramid of four stages; logits are for image sides divisible by 32, `features` for any size.

  Attributes, in addition to those of every `Backbone`:
    patch_size: 4 in all variants.
    hidden_dim: channels of the first stage (the paper's C); each stage doubles them.
    depths: blocks per stage.
    mlp_ratio: hidden width of the channel MLPs / channels.
    shift_size: odd; 5 in the paper, 1 turns shifts off.
    padding, dilation: of the shifts, see `shift.axial_shift`; the released code has only "zero" and 1.
    connection: "parallel" or "serial", see `AxialShift`.
  """

  any_size: ClassVar[bool] = True
  map_norm: ClassVar[str] = "group"

  patch_size: int = 4
  hidden_dim: int = 96
  depths: tuple[int, ...] = (2, 2, 6, 2)
  mlp_ratio: float = 4.0
  shift_size: int = 5
  padding: str = "zero"
  dilation: int = 1
  connection: str = "parallel"

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
    if self.connection not in ("parallel", "serial"):
      raise ValueError(f"unknown connection {self.connection!r}; 'parallel' or 'serial'")
    height, width = images.shape[1:3]
    if not return_features and (height % self.size_divisor or width % self.size_divisor):
      raise ValueError(f"images of {height}x{width}: AS-MLP needs image sides divisible by {self.size_divisor}")
    if sizes is not None and self.padding != "zero":
      raise ValueError(f"shifts with {self.padding!r} padding cannot end at an image's size: set padding='zero'")
    x = base.patch_embed(canvas.masked(images, sizes), self.patch_size, self.hidden_dim, dtype=self.dtype)
    cells = canvas.cells(sizes, self.patch_size)
    x = layers.GroupNorm1(dtype=self.dtype, name="stem_norm")(x, canvas.mask(x.shape, cells))
    drop_paths = iter(self.drop_paths(images.shape[0], train))
    maps = []
    for stage, depth in enumerate(self.depths):
      if stage:
        x = PatchMerging(self.dtype, name=f"merge_{stage - 1}")(x, cells)
        cells = canvas.cells(cells, 2)
      for i in range(depth):
        x = self.block(ASBlock, f"stage_{stage}_block_{i}")(x, train, next(drop_paths), cells)
      maps.append(x)
    if return_features:
      return tuple(maps)
    x = layers.GroupNorm1(dtype=self.dtype, name="norm")(x)
    return base.classify(x.mean((1, 2)), self.num_classes, kernel_init=nn.initializers.normal(0.02))


VARIANTS = {
  "asmlp_tiny": dict(hidden_dim=96, depths=(2, 2, 6, 2)),
  "asmlp_small": dict(hidden_dim=96, depths=(2, 2, 18, 2)),
  "asmlp_base": dict(hidden_dim=128, depths=(2, 2, 18, 2)),
  "asmlp_mobile": dict(hidden_dim=64, depths=(2, 2, 2, 2)),
}

_THEIRS, _BLOCK = "layers.{s}.blocks.{i}", "stage_{s}_block_{i}"

_OFFICIAL = Table(
  "official",
  (
    ("patch_embed.proj", "stem", CONV),
    ("patch_embed.norm", "stem_norm", NORM),
    (f"{_THEIRS}.norm1", f"{_BLOCK}/norm1", NORM),
    (f"{_THEIRS}.axial_shift.conv1", f"{_BLOCK}/axial_shift/conv1", CONV1X1),
    (f"{_THEIRS}.axial_shift.norm1", f"{_BLOCK}/axial_shift/norm1", NORM),
    (f"{_THEIRS}.axial_shift.conv2_1", f"{_BLOCK}/axial_shift/conv2_1", CONV1X1),
    (f"{_THEIRS}.axial_shift.conv2_2", f"{_BLOCK}/axial_shift/conv2_2", CONV1X1),
    (f"{_THEIRS}.axial_shift.norm2", f"{_BLOCK}/axial_shift/norm2", NORM),
    (f"{_THEIRS}.axial_shift.conv3", f"{_BLOCK}/axial_shift/conv3", CONV1X1),
    (f"{_THEIRS}.norm2", f"{_BLOCK}/norm2", NORM),
    (f"{_THEIRS}.mlp", f"{_BLOCK}/channel_mixing", MLP_CONV1X1),
    ("layers.{s}.downsample.norm", "merge_{s}/norm", NORM),
    ("layers.{s}.downsample.reduction", "merge_{s}/reduction", CONV1X1),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

FAMILY = Family(ASMLP, VARIANTS, pyramid, block=_BLOCK, tables=(_OFFICIAL,))
