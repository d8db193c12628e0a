"""MLP-Mixer (Tolstikhin et al., arXiv 2105.01601). Parameter names are those of the published weights."""

from typing import Any

from flax import linen as nn
import jax

from mlpvision.models import base, layers
from mlpvision.models.family import Family, count, stem
from mlpvision.models.naming import CONV, DENSE, KERNEL, MLP, NORM, SCALE, Leaf, Table, squeeze


class MixerBlock(nn.Module):
  """Pre-norm token mixing, then pre-norm channel mixing (Sec. 2, Fig. 1); [B, S, C] -> [B, S, C]."""

  tokens_mlp_dim: int
  channels_mlp_dim: int
  approximate_gelu: bool
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, drop_path: layers.DropPath) -> jax.Array:
    mlp = dict(dropout=self.dropout, approximate=self.approximate_gelu, dtype=self.dtype)
    y = layers.LayerNorm(dtype=self.dtype, name="LayerNorm_0")(x).swapaxes(1, 2)
    y = layers.Mlp(self.tokens_mlp_dim, **mlp, name="token_mixing")(y, train).swapaxes(1, 2)
    x = x + drop_path(y, 0)
    y = layers.LayerNorm(dtype=self.dtype, name="LayerNorm_1")(x)
    return x + drop_path(layers.Mlp(self.channels_mlp_dim, **mlp, name="channel_mixing")(y, train), 1)


class MlpMixer(base.Backbone):
  """MLP-Mixer. The token MLPs fix the number of patches, so parameters are for one image size.

  Attributes, in addition to those of every `Backbone`:
    patch_size, num_blocks, hidden_dim, tokens_mlp_dim, channels_mlp_dim: the paper's Table 1 (P, layers, C, D_S, D_C).
    approximate_gelu: tanh GELU, as in the original JAX code; False for exact GELU, as timm uses for the same weights.
    drop_path_rescale: divide kept branches by 1 - rate; the original code (big_vision) does not.
    head_bias_init: initial bias of the head; -6.9 in big_vision's recipe with the sigmoid loss, about -ln(classes).
  """

  patch_size: int = 16
  num_blocks: int = 12
  hidden_dim: int = 768
  tokens_mlp_dim: int = 384
  channels_mlp_dim: int = 3072
  approximate_gelu: bool = True
  drop_path_rescale: bool = True
  head_bias_init: float = 0.0

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False, return_features: bool = False) -> base.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]."""
    init = dict(kernel_init=nn.linear.default_kernel_init, bias_init=nn.initializers.zeros_init(), dtype=self.dtype)
    x = base.patch_embed(images, self.patch_size, self.hidden_dim, **init)
    rows, columns = x.shape[1:3]
    x = x.reshape(x.shape[0], rows * columns, self.hidden_dim)
    self.check_patches(_patches, rows, columns)
    for i, drop_path in enumerate(self.drop_paths(x.shape[0], train, rescale=self.drop_path_rescale)):
      x = self.block(MixerBlock, f"MixerBlock_{i}")(x, train, drop_path)
    x = layers.LayerNorm(dtype=self.dtype, name="pre_head_layer_norm")(x)
    if return_features:
      return (x.reshape(x.shape[0], rows, columns, self.hidden_dim),)
    head = dict(kernel_init=nn.initializers.zeros_init(), bias_init=nn.initializers.constant(self.head_bias_init))
    return base.classify(x.mean(1), self.num_classes, **head)


def _size(patch_size, num_blocks, hidden_dim):
  # Table 1: D_S = C / 2 and D_C = 4 C in every variant.
  sizes = dict(patch_size=patch_size, num_blocks=num_blocks, hidden_dim=hidden_dim)
  return dict(**sizes, tokens_mlp_dim=hidden_dim // 2, channels_mlp_dim=4 * hidden_dim)


VARIANTS = {
  "mixer_s32": _size(32, 8, 512),
  "mixer_s16": _size(16, 8, 512),
  "mixer_b32": _size(32, 12, 768),
  "mixer_b16": _size(16, 12, 768),
  "mixer_l32": _size(32, 24, 1024),
  "mixer_l16": _size(16, 24, 1024),
  "mixer_h14": _size(14, 32, 1280),
}


def _arguments(shapes):
  return dict(
    **stem(shapes),
    num_blocks=count(shapes, "MixerBlock_{i}"),
    tokens_mlp_dim=shapes["MixerBlock_0/token_mixing/Dense_0/kernel"][1],
    channels_mlp_dim=shapes["MixerBlock_0/channel_mixing/Dense_0/kernel"][1],
  )


def _patches(_, shapes):
  return shapes["MixerBlock_0/token_mixing/Dense_0/kernel"][0]


_BLOCK = "MixerBlock_{i}"

_TIMM = Table(
  "timm",
  (
    ("stem.proj", "stem", CONV),
    ("blocks.{i}.norm1", f"{_BLOCK}/LayerNorm_0", NORM),
    ("blocks.{i}.mlp_tokens", f"{_BLOCK}/token_mixing", MLP),
    ("blocks.{i}.norm2", f"{_BLOCK}/LayerNorm_1", NORM),
    ("blocks.{i}.mlp_channels", f"{_BLOCK}/channel_mixing", MLP),
    ("norm", "pre_head_layer_norm", NORM),
    ("head", "head", DENSE),
  ),
  options=dict(approximate_gelu=False),
)

# The names in the .npz files of google-research/vision_transformer and big_vision are ours.
_NPZ = Table("npz", separator="/")

# The layout before their release, which big_vision's loader still reads. An MLP is one module with four leaves.
_OLD_MLP = tuple(Leaf(f"{leaf}{i + 1}", f"Dense_{i}/{leaf}", squeeze) for i in (0, 1) for leaf in ("kernel", "bias"))
_OLD_NPZ = Table(
  "old npz",
  (
    ("embedding", "stem", KERNEL),
    ("Mixer/encoderblock_{i}/LayerNorm_0", f"{_BLOCK}/LayerNorm_0", SCALE),
    ("Mixer/encoderblock_{i}/token_mixing_phase_0", f"{_BLOCK}/token_mixing", _OLD_MLP),
    ("Mixer/encoderblock_{i}/LayerNorm_1", f"{_BLOCK}/LayerNorm_1", SCALE),
    ("Mixer/encoderblock_{i}/channel_mixing_phase_0", f"{_BLOCK}/channel_mixing", _OLD_MLP),
    ("Mixer/encoder_norm", "pre_head_layer_norm", SCALE),
    ("head", "head", KERNEL),
  ),
  separator="/",
  read_only=True,
)

FAMILY = Family(
  MlpMixer,
  VARIANTS,
  _arguments,
  block=_BLOCK,
  patches=_patches,
  resize="token_mixing",
  free=("drop_path_rescale", "head_bias_init"),
  tables=(_TIMM, _NPZ, _OLD_NPZ),
)
