"""ViP, the Vision Permutator (Hou et al., arXiv 2106.12368); follows the official code (houqb/VisionPermutator)."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import base, layers
from mlpvision.models.family import Family, ratio, stages
from mlpvision.models.naming import CONV, DENSE, MLP, NORM, Table
from mlpvision.models.split_attention import SplitAttention

_INIT = nn.initializers.normal(0.02)


class PermuteMixing(nn.Module):
  """Three products, along the height, the width and the channels, split attention, Dense; [B, N, N, C] -> same.

  The channels are N groups of S = C / N; channel n * S + s is s of group n (Algorithm 1 and the code; the paper's text
  has segments of N channels). The C x C kernel `mlp_h` mixes a column's N positions and the S channels of a group, the
  same for all columns and groups; `mlp_w` a row's. Their shapes do not tell N.
  """

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    side, channels, dense = x.shape[1], x.shape[-1], dict(kernel_init=_INIT, dtype=self.dtype)

    def permuted(name, product):
      def along(x, kernel, *_, **__):
        segments = x.reshape(*x.shape[:3], side, channels // side)
        kernel = kernel.reshape(side, channels // side, side, channels // side)
        return jnp.einsum(product, segments, kernel).reshape(x.shape)

      return layers.Dense(channels, use_bias=False, dot_general=along, **dense, name=name)(x)

    branches = (
      permuted("mlp_h", "bhwns,hsgt->bgwnt"),
      permuted("mlp_w", "bhwns,wsgt->bhgnt"),
      layers.Dense(channels, use_bias=False, **dense, name="mlp_c")(x),
    )
    attention = SplitAttention(4, layout="channel", bias=True, kernel_init=_INIT, dtype=self.dtype, name="reweight")
    return layers.Dense(channels, **dense, name="proj")(attention(branches))


class PermutatorBlock(nn.Module):
  """x + PermuteMixing(norm(x)), then x + MLP(norm(x)); [B, N, N, C] -> [B, N, N, C]."""

  mlp_ratio: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, drop_path: layers.DropPath) -> jax.Array:
    norm = dict(epsilon=1e-5, dtype=self.dtype)
    y = layers.LayerNorm(**norm, name="norm1")(x)
    x = x + drop_path(PermuteMixing(self.dtype, name="mixing")(y), 0)
    y = layers.LayerNorm(**norm, name="norm2")(x)
    mlp = dict(dropout=self.dropout, kernel_init=_INIT, dtype=self.dtype, name="channel_mixing")
    return x + drop_path(layers.Mlp(int(x.shape[-1] * self.mlp_ratio), **mlp)(y, train), 1)


class ViP(base.Backbone):
  """ViP, for one image size: `segments` patches in each direction.

  Attributes, in addition to those of every `Backbone`:
    patch_size: of the stem.
    segments: rows and columns of the first stage's map, N, which divide hidden_dim. The parameters are for this number,
      but their shapes do not tell it.
    hidden_dim, depths, mlp_ratio: channels, blocks and hidden width / channels of each stage (the code's runs of
      blocks, of which several can have the same resolution).
    transitions: the stages (from 0) that begin with patches of 2x2 positions, which halve the resolution.
  """

  patch_size: int = 7
  segments: int = 32
  hidden_dim: tuple[int, ...] = (192, 384, 384, 384)
  depths: tuple[int, ...] = (4, 3, 8, 3)
  mlp_ratio: tuple[float, ...] = (3.0, 3.0, 3.0, 3.0)
  transitions: tuple[int, ...] = (1,)

  @property
  def feature_strides(self) -> tuple[int, ...]:
    """Image pixels per position, for each map of `features`: one per stage, also for those of one resolution."""
    halvings = (sum(first <= stage for first in self.transitions) for stage in range(len(self.depths)))
    return tuple(self.patch_size * 2**number for number in halvings)

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> base.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]."""
    self._check(*images.shape[1:3])
    x = base.strided(images, self.patch_size, self.hidden_dim[0], "stem", overlapping=False, dtype=self.dtype)
    drop_paths = iter(self.drop_paths(images.shape[0], train))
    maps, part = [], 0  # stages and transitions are numbered in one sequence, as in the published weights
    for stage, (depth, width, expansion) in enumerate(zip(self.depths, self.hidden_dim, self.mlp_ratio, strict=True)):
      if stage in self.transitions:
        x = base.strided(x, 2, width, f"merge_{part}", overlapping=False, dtype=self.dtype)
        part += 1
      for i in range(depth):
        block = self.block(PermutatorBlock, f"stage_{part}_block_{i}", mlp_ratio=expansion)
        x = block(x, train, next(drop_paths))
      maps.append(x)
      part += 1
    if return_features:
      return tuple(maps)
    x = layers.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)
    return base.classify(x.mean((1, 2)), self.num_classes, kernel_init=_INIT)

  def _check(self, height, width):
    self.check_stages()
    for stage, channels in enumerate(self.hidden_dim):
      if stage and stage not in self.transitions and channels != self.hidden_dim[stage - 1]:
        raise ValueError(f"stage {stage} has another width than stage {stage - 1}: add it to {self.transitions=}")
      side, rest = divmod(self.segments * self.patch_size, self.feature_strides[stage])
      if rest or not side or channels % side:
        raise ValueError(
          f"stage {stage}: {channels} channels cannot be divided into {side} segments ({self.segments=})"
        )
    if (height, width) != (self.segments * self.patch_size,) * 2:
      raise ValueError(
        f"this ViP is for {self.segments}x{self.segments} patches of {self.patch_size}x{self.patch_size} pixels, the"
        f" images have {height}x{width} pixels: use images of {self.segments * self.patch_size} pixels, or set"
        " `segments` for new parameters. Trained ones cannot be resized"
      )


_S = (384, 384, 384, 384)

VARIANTS = {
  "vip_s14": dict(patch_size=14, segments=16, hidden_dim=_S, depths=(4, 3, 8, 3), transitions=()),
  "vip_s7": dict(hidden_dim=(192, 384, 384, 384), depths=(4, 3, 8, 3)),
  "vip_m7": dict(hidden_dim=(256, 256, 512, 512), depths=(4, 3, 14, 3), transitions=(2,)),
  "vip_l7": dict(hidden_dim=(256, 512, 512, 512), depths=(8, 8, 16, 4)),
}


def _arguments(shapes):
  found, patch_size = stages(shapes), shapes["stem/kernel"][0]
  parts = sorted(found)
  kernels = [shapes[f"stage_{part}_block_0/channel_mixing/Dense_0/kernel"] for part in parts]
  sizes = dict(
    patch_size=patch_size,
    hidden_dim=tuple(channels for channels, _ in kernels),
    depths=tuple(found[part] for part in parts),
    mlp_ratio=tuple(ratio(*kernel) for kernel in kernels),
    transitions=tuple(stage for stage, part in enumerate(parts) if f"merge_{part - 1}/kernel" in shapes),
  )
  # All published weights are for 224 pixels. If others cannot be, the number of segments is ambiguous.
  side = 224 / patch_size
  halved = (side * patch_size / stride for stride in ViP(**sizes).feature_strides)
  fits = all(one % 1 == 0 and width % one == 0 for one, width in zip(halved, sizes["hidden_dim"], strict=True))
  return dict(**sizes, segments=int(side) if fits and side % 1 == 0 else None)


_THEIRS, _BLOCK = "network.{s}.{i}", "stage_{s}_block_{i}"

_OFFICIAL = Table(
  "official",
  (
    ("patch_embed.proj", "stem", CONV),
    ("network.{s}.proj", "merge_{s}", CONV),
    (f"{_THEIRS}.norm1", f"{_BLOCK}/norm1", NORM),
    (f"{_THEIRS}.attn.mlp_h", f"{_BLOCK}/mixing/mlp_h", DENSE),
    (f"{_THEIRS}.attn.mlp_w", f"{_BLOCK}/mixing/mlp_w", DENSE),
    (f"{_THEIRS}.attn.mlp_c", f"{_BLOCK}/mixing/mlp_c", DENSE),
    (f"{_THEIRS}.attn.reweight", f"{_BLOCK}/mixing/reweight", MLP),
    (f"{_THEIRS}.attn.proj", f"{_BLOCK}/mixing/proj", DENSE),
    (f"{_THEIRS}.norm2", f"{_BLOCK}/norm2", NORM),
    (f"{_THEIRS}.mlp", f"{_BLOCK}/channel_mixing", MLP),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

FAMILY = Family(
  ViP,
  VARIANTS,
  _arguments,
  block=_BLOCK,
  patches=lambda module, shapes: (module.segments, module.segments),
  tables=(_OFFICIAL,),
)
