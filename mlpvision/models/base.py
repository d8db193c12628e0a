"""What all families are built on: the base of their modules, the patch embedding and the classifier."""

from collections.abc import Callable
import functools
from typing import Any, ClassVar

from flax import linen as nn
from flax.traverse_util import flatten_dict
import jax
from jax.nn.initializers import Initializer
import jax.numpy as jnp

from mlpvision.models import canvas, layers, remat
from mlpvision.models.feature_info import FeatureInfo

_ZEROS = nn.initializers.zeros_init()
Outputs = jax.Array | tuple[jax.Array, ...]  # logits, or the maps of `Backbone.features`


class Backbone(nn.Module):
  """What all families share; each also has `patch_size`, and `num_blocks` or, in a pyramid of stages, `depths`.

  Attributes:
    num_classes: width of the head. None or, as in timm, 0 returns the features that the head would get, [B, C]: the
      mean over the positions or, in a model with a class token, the token's.
    drop_path: stochastic depth of the last block; the rate increases linearly from 0. Both branches of a block use it.
    dropout: after both layers of every MLP or channel MLP; 0 in the papers of the MLP families.
    remat: what the backward pass recomputes: "none", "block" or "preactivations", see `remat.apply`.
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

  def drop_paths(
    self, batch_size: int, train: bool, *, branches: int = 2, constant: bool = False, rescale: bool = True
  ) -> list[layers.DropPath]:
    """The drop path of each block; constant: with the same rate. The rest: see `layers.drop_paths`."""
    num_blocks = sum(self.depths) if hasattr(self, "depths") else self.num_blocks
    if not train:
      return [layers.DropPath()] * num_blocks
    rates = [self.drop_path] * num_blocks if constant else layers.drop_path_rates(self.drop_path, num_blocks)
    key = functools.partial(self.make_rng, "dropout")
    return layers.drop_paths(key, rates, batch_size, branches=branches, rescale=rescale)

  def check_stages(self) -> None:
    """Raises ValueError unless hidden_dim, depths and mlp_ratio are tuples with one entry per stage."""
    values = {key: getattr(self, key) for key in ("hidden_dim", "depths", "mlp_ratio")}
    if {len(value) if isinstance(value, tuple | list) else None for value in values.values()} != {len(self.depths)}:
      found = ", ".join(f"{key}={value}" for key, value in values.items())
      raise ValueError(f"{type(self).__name__} needs tuples with one entry per stage, not {found}")

  def block(self, module: type[nn.Module], name: str, **options: Any) -> nn.Module:
    """A block with the remat policy of this model, and this model's values of the attributes not in options."""
    shared = {key: getattr(self, key) for key in layers.attributes(module) if key not in options}
    return remat.apply(module, self.remat)(**shared, **options, name=name)

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
  kernel_init: Initializer = layers.torch_kernel_init,
  bias_init: Initializer | None = None,
  dtype: Any = jnp.float32,
) -> jax.Array:
  """Projects non-overlapping patches with the layer `stem`: images [B, H, W, 3] -> [B, H/p, W/p, features].

  Call it in a compact method. The default initializers are PyTorch's. ValueError if p does not divide the sides.
  """
  height, width, channels = images.shape[1:]
  if height % patch_size or width % patch_size:
    raise ValueError(f"images of {height}x{width} cannot be cut into patches of {patch_size}x{patch_size}")
  init = dict(kernel_init=kernel_init, bias_init=bias_init or layers.torch_bias_init(channels * patch_size**2))
  size = (patch_size, patch_size)
  return nn.Conv(features, size, strides=size, padding="VALID", **init, dtype=dtype, name="stem")(images)


def strided(x: jax.Array, stride: int, features: int, name: str, *, overlapping: bool, dtype: Any) -> jax.Array:
  """A convolution to a map of 1 / stride the resolution: [B, H, W, C] -> [B, H/stride, W/stride, features].

  Call it in a compact method. The initializers are PyTorch's default.

  overlapping: kernels of 2 * stride - 1 positions with zeros on both sides, as in MetaFormers, whose stem has 7x7 with
    stride 4 and padding 2, their reductions 3x3, 2 and 1; "SAME" would pad otherwise. False: patches.
  """
  side, padding = (2 * stride - 1, stride // 2) if overlapping else (stride, 0)
  init = dict(kernel_init=layers.torch_kernel_init, bias_init=layers.torch_bias_init(x.shape[-1] * side**2))
  size = dict(kernel_size=(side, side), strides=(stride, stride), padding=[(padding, padding)] * 2)
  return nn.Conv(features, **size, **init, dtype=dtype, name=name)(x)


def classify(
  x: jax.Array,
  num_classes: int | None,
  *,
  kernel_init: Initializer,
  bias_init: Initializer = _ZEROS,
) -> jax.Array:
  """Applies the layer `head` to pooled features: [B, C] -> float32 [B, num_classes]; [B, C] if that is None or 0."""
  x = x.astype(jnp.float32)
  return nn.Dense(num_classes, kernel_init=kernel_init, bias_init=bias_init, name="head")(x) if num_classes else x
