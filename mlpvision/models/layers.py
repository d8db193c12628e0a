"""Building blocks that more than one family uses."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import dataclasses
from typing import Any, ClassVar

from flax import linen as nn
from flax.traverse_util import flatten_dict
import jax
from jax.nn.initializers import Initializer
import jax.numpy as jnp

from mlpvision.models import canvas, forms
from mlpvision.models.feature_info import FeatureInfo

# PyTorch's default for linear and convolution layers, kernels and biases: uniform within +-1 / sqrt(fan_in).
torch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_ZEROS = nn.initializers.zeros_init()


def torch_bias_init(fan_in: int) -> Callable[..., jax.Array]:
  bound = fan_in**-0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Dense(nn.Dense):
  """nn.Dense with `forms.product`; `forms.remat` can keep the result."""

  dot_general: Any = lambda x, kernel, *_, **__: forms.product(x, kernel)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., C_in] -> [..., features]."""
    return forms.saved(super().__call__(x))


_part = contextvars.ContextVar("part", default=(0, 1))  # (part, parts) of `part_of_batch`


@contextlib.contextmanager
def part_of_batch(part: int | jax.Array, parts: int) -> Iterator[None]:
  """Models traced in this context process rows part, part + parts, ... of a batch; part may be traced.

  Drop path then drops the same rows as it would in the whole batch.
  """
  token = _part.set((part, parts))
  try:
    yield
  finally:
    _part.reset(token)


class Dropout(nn.Dropout):
  """nn.Dropout, active if train is True, with different random numbers for each part of a batch."""

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    if not train or self.rate == 0.0:
      return x
    part, _ = _part.get()
    return super().__call__(x, deterministic=False, rng=jax.random.fold_in(self.make_rng("dropout"), part))


class Mlp(nn.Module):
  """Dense, GELU, Dense over the last axis; [..., C] -> [..., C].

  approximate: tanh GELU (Flax's default, so the original Mixer's) instead of exact GELU.
  bias_init: maps a layer's fan-in to its initializer.
  """

  hidden_dim: int
  dropout: float = 0.0
  approximate: bool = False
  kernel_init: Any = nn.linear.default_kernel_init
  bias_init: Any = lambda fan_in: _ZEROS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    dense = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    out = Dense(self.hidden_dim, bias_init=self.bias_init(x.shape[-1]), **dense)(x)
    out = nn.gelu(out, approximate=True) if self.approximate else forms.gelu(out)
    out = Dropout(self.dropout)(out, train)
    out = Dense(x.shape[-1], bias_init=self.bias_init(self.hidden_dim), **dense)(out)
    return Dropout(self.dropout)(out, train)


class LayerNorm(nn.Module):
  """Layer normalization (arXiv 1607.06450) over the last axis; [..., C] -> [..., C] in `dtype`.

  Same values and parameters as nn.LayerNorm. `factor` multiplies the result and broadcasts against it.
  """

  epsilon: float = 1e-6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, factor: jax.Array | float | None = None) -> jax.Array:
    scale, bias = _scale_and_bias(self, x.shape[-1])
    return forms.layer_norm(x, scale, bias, self.epsilon, self.dtype, factor)


class GroupNorm1(nn.Module):
  """GroupNorm (arXiv 1803.08494) with one group: normalizes each example over all positions and channels.

  [B, ..., C] -> the same shape in `dtype`, with the values and parameters of nn.GroupNorm. A mask, bool and
  broadcasting against the input, restricts the statistics to positions where it is True.

  features: number of scales and biases; None for C.
  arrange: maps scales and biases to an array that broadcasts against the input.
  """

  features: int | None = None
  arrange: Callable[[jax.Array], jax.Array] = lambda values: values
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    scale, bias = map(self.arrange, _scale_and_bias(self, self.features or x.shape[-1]))
    return forms.group_norm(x, scale, bias, self.epsilon, self.dtype, mask)


class Affine(nn.Module):
  """ResMLP's alpha * x + beta per channel (arXiv 2105.03404, Eq. 1), times factor; [..., C] -> [..., C] in `dtype`."""

  init_value: float = 1.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, factor: jax.Array | float | None = None) -> jax.Array:
    scale, bias = _scale_and_bias(self, x.shape[-1], self.init_value)
    return forms.affine(x, scale, bias, self.dtype, factor)


def _scale_and_bias(module, channels, init_value=1.0):
  scale = module.param("scale", nn.initializers.constant(init_value), (channels,))
  return scale, module.param("bias", _ZEROS, (channels,))


class DropPath(nn.Module):
  """Stochastic depth (arXiv 1603.09382): drops the whole branch of an example with probability `rate`.

  rescale: divide the kept branches by 1 - rate, as timm and DeiT do; the original Mixer code does not.
  """

  rate: float
  rescale: bool = True

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    if not train or self.rate == 0.0:
      return x
    return jnp.where(self._mask(x), x / (1.0 - self.rate) if self.rescale else x, jnp.zeros_like(x))

  def factor(self, x: jax.Array, train: bool = False) -> jax.Array | float:
    """The factor that a call applies to x [B, ...], float32 [B, 1, ...]; a norm can apply it instead."""
    if not train or self.rate == 0.0:
      return 1.0
    return jnp.where(self._mask(x), 1.0 / (1.0 - self.rate) if self.rescale else 1.0, 0.0)

  def _mask(self, x):
    mask = bernoulli_rows(self.make_rng("dropout"), 1.0 - self.rate, (x.shape[0],))
    return mask.reshape(-1, *[1] * (x.ndim - 1))


def bernoulli_rows(key: jax.Array, probability: float, shape: tuple[int, ...]) -> jax.Array:
  """bool of this shape, True with `probability`; an image's row does not depend on the parts of `part_of_batch`."""
  part, parts = _part.get()
  return jax.random.bernoulli(key, probability, (shape[0], parts, *shape[1:]))[:, part]


def keys_of_rows(key: jax.Array, rows: int) -> jax.Array:
  """A key for each of the `rows` images of a batch, or of its part; an image's does not depend on the parts."""
  part, parts = _part.get()
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows) * parts + part)


def drop_path_rates(rate: float, num_blocks: int) -> list[float]:
  """Drop rates per block, from 0 in the first block linearly to `rate` in the last."""
  return [rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]


def attributes(module: type[nn.Module]) -> list[str]:
  """The names of the attributes that a linen module class declares."""
  return [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]


Outputs = jax.Array | tuple[jax.Array, ...]  # logits, or the maps of `Backbone.features`


class Backbone(nn.Module):
  """What all families share; each also has `patch_size`, and `num_blocks` or, in a pyramid of stages, `depths`.

  Attributes:
    num_classes: width of the head. None or, as in timm, 0 returns the features that the head would get, [B, C]: the
      mean over the positions or, in a model with a class token, the token's.
    drop_path: stochastic depth of the last block; the rate increases linearly from 0. Both branches of a block use it.
    dropout: after both layers of every MLP or channel MLP; 0 in the papers of the MLP families.
    remat: what the backward pass recomputes: "none", "block" or "preactivations", see `forms.remat`.
    dtype: of the computation; parameters and logits are float32.

  Of the class:
    any_size: whether `features` takes images of any size, and `sizes`; the parameters then fix no number of patches.
    map_norm: the norm that suits this family's maps, "layer" or "group" (one group), see `pyramid.Pyramid`.
  """

  any_size: ClassVar[bool] = False
  map_norm: ClassVar[str] = "layer"

  num_classes: int | None = 1000
  drop_path: float = 0.0
  dropout: float = 0.0
  remat: str = "none"
  dtype: Any = jnp.float32

  @property
  def feature_strides(self) -> tuple[int, ...]:
    """Image pixels per position, for each map of `features`."""
    stages = len(self.depths) if hasattr(self, "depths") else 1
    return tuple(self.patch_size * 2**stage for stage in range(stages))

  @property
  def feature_widths(self) -> tuple[int, ...]:
    """Channels of each map of `features`: hidden_dim, which doubles from stage to stage unless it has one per stage."""
    widths = self.hidden_dim
    return tuple(
      widths if isinstance(widths, tuple | list) else (widths * 2**i for i in range(len(self.feature_strides)))
    )

  @property
  def feature_info(self) -> FeatureInfo:
    """Both, as timm's `feature_info`: model.feature_info.channels(), .reduction(), or [0]["num_chs"]."""
    pairs = zip(self.feature_widths, self.feature_strides, strict=True)
    return FeatureInfo(dict(num_chs=width, reduction=stride, index=i) for i, (width, stride) in enumerate(pairs))

  @property
  def size_divisor(self) -> int:
    """Both sides of an image must be multiples of this."""
    return self.feature_strides[-1]

  def features(
    self, images: jax.Array, *, train: bool = False, sizes: jax.Array | None = None
  ) -> tuple[jax.Array, ...]:
    """One map per stage, ([B, H/stride, W/stride, channels], ...), sides rounded up.

    A plain stack returns the output of its last norm, if it has one, without the class token. A pyramid returns each
    stage's output before it is merged.

    Args:
      images: float [B, H, W, 3], normalized. If the family takes any size, zeros pad them to whole patches.
      train: whether drop path and dropout act.
      sizes: int [B, 2], height and width of each image in the top left corner of its canvas. The maps then equal those
        of the image alone: in its ceil(size / stride) rows and columns, whatever the canvas holds beyond it. Their
        values beyond are unspecified. None: the image fills the canvas.

    Raises:
      ValueError: sizes for a family whose parameters fix the number of patches; images that do not fit.
    """
    if self.any_size:
      return self(canvas.padded(images, self.patch_size), train=train, return_features=True, sizes=sizes)
    if sizes is not None:
      raise ValueError(
        f"{type(self).__name__} cannot leave out a part of a canvas: its parameters are for a fixed number of patches,"
        " and each sees all of them. Use images that fill the canvas, without `sizes`"
      )
    return self(images, train=train, return_features=True)

  def check_stages(self) -> None:
    """Raises ValueError unless hidden_dim, depths and mlp_ratio are tuples with one entry per stage."""
    values = {key: getattr(self, key) for key in ("hidden_dim", "depths", "mlp_ratio")}
    if {len(value) if isinstance(value, tuple | list) else None for value in values.values()} != {len(self.depths)}:
      found = ", ".join(f"{key}={value}" for key, value in values.items())
      raise ValueError(f"{type(self).__name__} needs tuples with one entry per stage, not {found}")

  def block(self, module: type[nn.Module], name: str, **options: Any) -> nn.Module:
    """A block with the remat policy of this model, and this model's values of the attributes not in options."""
    shared = {key: getattr(self, key) for key in attributes(module) if key not in options}
    return forms.remat(module, self.remat)(**shared, **options, name=name)

  def check_patches(self, patches: Callable[[Any, Any], Any], rows: int, columns: int) -> None:
    """Raises ValueError if the parameters are not for rows x columns patches; patches: see `Family`."""
    if self.is_initializing():
      return
    params = flatten_dict(self.variables["params"], sep="/")
    expected = patches(self, {path: leaf.shape for path, leaf in params.items()})
    found = rows * columns if isinstance(expected, int) else (rows, columns)
    if found != expected:
      wanted, found = (str(n).strip("()").replace(", ", "x") for n in (expected, found))
      raise ValueError(
        f"these {type(self).__name__} parameters are for {wanted} patches of {self.patch_size}x{self.patch_size}"
        f" pixels, the images have {found}: use images of the original size, or resize the parameters"
        " (`mlpvision.weights.resize`)"
      )


def patch_embed(
  images: jax.Array,
  patch_size: int,
  features: int,
  *,
  kernel_init: Initializer = torch_kernel_init,
  bias_init: Initializer | None = None,
  dtype: Any = jnp.float32,
) -> jax.Array:
  """Projects non-overlapping patches with the layer `stem`: images [B, H, W, 3] -> [B, H/p, W/p, features].

  Call it in a compact method. The default initializers are PyTorch's. ValueError if p does not divide the sides.
  """
  height, width, channels = images.shape[1:]
  if height % patch_size or width % patch_size:
    raise ValueError(f"images of {height}x{width} cannot be cut into patches of {patch_size}x{patch_size}")
  init = dict(kernel_init=kernel_init, bias_init=bias_init or torch_bias_init(channels * patch_size**2))
  size = (patch_size, patch_size)
  return nn.Conv(features, size, strides=size, padding="VALID", **init, dtype=dtype, name="stem")(images)


def strided(x: jax.Array, stride: int, features: int, name: str, *, overlapping: bool, dtype: Any) -> jax.Array:
  """A convolution to a map of 1 / stride the resolution: [B, H, W, C] -> [B, H/stride, W/stride, features].

  Call it in a compact method. The initializers are PyTorch's default.

  overlapping: kernels of 2 * stride - 1 positions with zeros on both sides, as in MetaFormers, whose stem has 7x7 with
    stride 4 and padding 2, their reductions 3x3, 2 and 1; "SAME" would pad otherwise. False: patches.
  """
  side, padding = (2 * stride - 1, stride // 2) if overlapping else (stride, 0)
  init = dict(kernel_init=torch_kernel_init, bias_init=torch_bias_init(x.shape[-1] * side**2))
  size = dict(kernel_size=(side, side), strides=(stride, stride), padding=[(padding, padding)] * 2)
  return nn.Conv(features, **size, **init, dtype=dtype, name=name)(x)


def classify(
  x: jax.Array, num_classes: int | None, *, kernel_init: Initializer, bias_init: Initializer = _ZEROS
) -> jax.Array:
  """Applies the layer `head` to pooled features: [B, C] -> float32 [B, num_classes]; [B, C] if that is None or 0."""
  x = x.astype(jnp.float32)
  return nn.Dense(num_classes, kernel_init=kernel_init, bias_init=bias_init, name="head")(x) if num_classes else x
