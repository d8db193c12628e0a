"""UperNet (Xiao et al., arXiv 1807.10221), as mmsegmentation's `UPerHead` and `FCNHead`, on the maps of a backbone."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import base, canvas, layers, pyramid
from mlpvision.models.batch_norm import BatchNorm
from mlpvision.models.heads import interpolation
from mlpvision.models.naming import CONV, CONV1X1, NORM, Leaf, Table

# The names of mmsegmentation's state dicts.
BATCH_NORM = (*NORM, Leaf("running_mean", "mean"), Leaf("running_var", "var"))


def _conv_module(theirs, ours):
  return ((f"{theirs}.conv", f"{ours}/conv", CONV[:1]), (f"{theirs}.bn", f"{ours}/bn", BATCH_NORM))


TABLE = Table(
  "mmseg",
  (
    *_conv_module("decode_head.lateral_convs.{i}", "decode_head/lateral_convs_{i}"),
    *_conv_module("decode_head.psp_modules.{i}.1", "decode_head/psp_modules_{i}"),
    *_conv_module("decode_head.bottleneck", "decode_head/bottleneck"),
    *_conv_module("decode_head.fpn_convs.{i}", "decode_head/fpn_convs_{i}"),
    *_conv_module("decode_head.fpn_bottleneck", "decode_head/fpn_bottleneck"),
    ("decode_head.conv_seg", "decode_head/conv_seg", CONV1X1),
    *_conv_module("auxiliary_head.convs.0", "auxiliary_head/convs_0"),
    ("auxiliary_head.conv_seg", "auxiliary_head/conv_seg", CONV1X1),
    *pyramid.ROWS,
  ),
  ignore=r"num_batches_tracked$",
)


class ConvModule(nn.Module):
  """Convolution without bias, batch normalization, ReLU; [B, H, W, C] -> [B, H, W, features].

  Initialized as mmcv's: normal with standard deviation sqrt(2 / (k * k * features)).
  """

  features: int
  kernel_size: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
    """mask: bool [B, H, W, 1], the valid cells; the others are read as zeros."""
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    if mask is not None and self.kernel_size > 1:
      x = jnp.where(mask, x, 0)
    size, pad = (self.kernel_size,) * 2, self.kernel_size // 2
    x = nn.Conv(self.features, size, padding=pad, use_bias=False, kernel_init=init, dtype=self.dtype, name="conv")(x)
    return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train))


class ChannelDropout(nn.Module):
  """PyTorch's Dropout2d: drops whole channels of an example, in training; [B, H, W, C] -> [B, H, W, C]."""

  rate: float

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    if not train or self.rate == 0.0:
      return x
    mask = layers.bernoulli_rows(self.make_rng("dropout"), 1.0 - self.rate, (x.shape[0], x.shape[-1]))
    return jnp.where(mask[:, None, None], x / (1.0 - self.rate), jnp.zeros_like(x))


def _classify(x, num_classes, dropout, train):
  """Dropout and the 1x1 convolution `conv_seg`; float32 logits."""
  x = ChannelDropout(dropout)(x, train).astype(jnp.float32)
  return nn.Dense(num_classes, kernel_init=nn.initializers.normal(0.01), name="conv_seg")(x)


class UPerHead(nn.Module):
  """Pyramid pooling of the last map, a feature pyramid, and the fusion of its levels (arXiv 1807.10221, Sec. 3.1).

  num_classes: of the logits; channels: of all levels; dropout: of whole channels before the classifier; bins: of the
    pyramid pooling.
  """

  num_classes: int
  channels: int = 512
  dropout: float = 0.1
  bins: tuple[int, ...] = (1, 2, 3, 6)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, maps: tuple[jax.Array, ...], train: bool = False, sizes: tuple[jax.Array, ...] | None = None
  ) -> jax.Array:
    """maps: four of [B, H_i, W_i, C_i], the finest first -> float32 logits [B, H_0, W_0, num_classes].

    sizes: for maps that are valid in a part of their canvas, int [B, 2] of each.
    """
    shapes = [x.shape[1:3] for x in maps]
    sizes = sizes or (None,) * len(maps)
    masks = [None if s is None else interpolation.inside(shape, s) for shape, s in zip(shapes, sizes, strict=True)]

    def conv(x, level, size, name):
      return ConvModule(self.channels, size, self.dtype, name=name)(x, train, masks[level])

    last = len(maps) - 1
    laterals = [conv(x, i, 1, f"lateral_convs_{i}") for i, x in enumerate(maps[:-1])]
    pooled = [maps[-1]]
    for i, bins in enumerate(self.bins):
      x = interpolation.adaptive_pool(maps[-1], bins, sizes[-1])
      x = ConvModule(self.channels, 1, self.dtype, name=f"psp_modules_{i}")(x, train)
      of_bins = None if sizes[-1] is None else jnp.full_like(sizes[-1], bins)
      pooled.append(interpolation.bilinear(x, shapes[-1], of_bins, sizes[-1]))
    laterals.append(conv(jnp.concatenate(pooled, -1), last, 3, "bottleneck"))
    for i in range(last, 0, -1):
      laterals[i - 1] += interpolation.bilinear(laterals[i], shapes[i - 1], sizes[i], sizes[i - 1])
    levels = [conv(laterals[i], i, 3, f"fpn_convs_{i}") for i in range(last)] + laterals[-1:]
    fused = [interpolation.bilinear(x, shapes[0], sizes[i], sizes[0]) for i, x in enumerate(levels)]
    x = conv(jnp.concatenate(fused, -1), 0, 3, "fpn_bottleneck")
    return _classify(x, self.num_classes, self.dropout, train)


class FCNHead(nn.Module):
  """The auxiliary head of training: a 3x3 convolution and the classifier; [B, H, W, C] -> float32 logits."""

  num_classes: int
  channels: int = 256
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    x = ConvModule(self.channels, 3, self.dtype, name="convs_0")(x, train)
    return _classify(x, self.num_classes, self.dropout, train)


class UperNet(nn.Module):
  """A segmenter: a backbone, its pyramid of maps, and the decode head; in training also the auxiliary head.

  Attributes:
    backbone: without a classifier.
    num_classes: of the logits.
    channels, auxiliary_channels: of the decode head and of the auxiliary head; 512 and 256 in AS-MLP's and Swin's
      configs.
    head_dropout: of channels, before both classifiers.
    dtype: of the computation; parameters, statistics and logits are float32.
  """

  backbone: base.Backbone
  num_classes: int
  channels: int = 512
  auxiliary_channels: int = 256
  head_dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool = False, sizes: jax.Array | None = None
  ) -> jax.Array | tuple[jax.Array, jax.Array]:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, ceil(H / 4), ceil(W / 4), num_classes].

    In training: (logits, logits of the auxiliary head at a quarter of that resolution).

    sizes: int [B, 2], the (height, width) of the part of its canvas that each image fills. The result is then (logits,
      int [B, 2], the part that they fill), equal to the logits of the image alone. None: all of it.
    """
    # A backbone for one image size sees its whole canvas, whatever the image fills.
    seen = sizes if self.backbone.any_size else None
    maps = self.backbone.features(images, train=train, sizes=seen)
    norms = pyramid.Pyramid(self.backbone.feature_strides, self.backbone.map_norm, self.dtype, name="pyramid")
    maps = norms(maps, seen)
    cells = None if seen is None else tuple(canvas.cells(seen, stride) for stride in pyramid.STRIDES)
    head = UPerHead(self.num_classes, self.channels, self.head_dropout, dtype=self.dtype, name="decode_head")
    logits = head(maps, train, cells)
    if not train and not self.is_initializing():
      return logits if sizes is None else (logits, canvas.cells(sizes, pyramid.STRIDES[0]))
    auxiliary = FCNHead(
      self.num_classes, self.auxiliary_channels, self.head_dropout, self.dtype, name="auxiliary_head"
    )(maps[2], train)
    return (logits, auxiliary) if train else logits
