"""The names that published weights use, family by family; what a row means is in `naming`.

The first table of a family that can be written is the one for .safetensors files.
"""

from collections.abc import Collection

from flax import linen as nn

from mlpvision.models import asmlp, ff, mixer, resmlp, s2mlp, swin, vit
from mlpvision.weights.naming import (
  AFFINE,
  AFFINE_3D,
  CONV,
  CONV1X1,
  DENSE,
  KERNEL,
  NORM,
  SCALE,
  Leaf,
  Table,
  squeeze,
)

_MIXER_BLOCK = "MixerBlock_{i}"

_MIXER_TIMM = Table(
  "timm",
  (
    ("stem.proj", "stem", CONV),
    ("blocks.{i}.norm1", f"{_MIXER_BLOCK}/LayerNorm_0", NORM),
    ("blocks.{i}.mlp_tokens.fc1", f"{_MIXER_BLOCK}/token_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp_tokens.fc2", f"{_MIXER_BLOCK}/token_mixing/Dense_1", DENSE),
    ("blocks.{i}.norm2", f"{_MIXER_BLOCK}/LayerNorm_1", NORM),
    ("blocks.{i}.mlp_channels.fc1", f"{_MIXER_BLOCK}/channel_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp_channels.fc2", f"{_MIXER_BLOCK}/channel_mixing/Dense_1", DENSE),
    ("norm", "pre_head_layer_norm", NORM),
    ("head", "head", DENSE),
  ),
  options=dict(approximate_gelu=False),
)

# The published .npz files are our own tree: google-research/vision_transformer and big_vision name it so.
_MIXER_NPZ = Table(
  "npz",
  tuple(
    (module, module, leaves)
    for module, leaves in (
      ("stem", KERNEL),
      (f"{_MIXER_BLOCK}/LayerNorm_0", SCALE),
      (f"{_MIXER_BLOCK}/token_mixing/Dense_0", KERNEL),
      (f"{_MIXER_BLOCK}/token_mixing/Dense_1", KERNEL),
      (f"{_MIXER_BLOCK}/LayerNorm_1", SCALE),
      (f"{_MIXER_BLOCK}/channel_mixing/Dense_0", KERNEL),
      (f"{_MIXER_BLOCK}/channel_mixing/Dense_1", KERNEL),
      ("pre_head_layer_norm", SCALE),
      ("head", KERNEL),
    )
  ),
  separator="/",
)

# Before their release: big_vision's loader still knows this layout. Both layers of an MLP are leaves of one module.
_OLD_MLP = (
  Leaf("kernel1", "Dense_0/kernel", squeeze),
  Leaf("bias1", "Dense_0/bias", squeeze),
  Leaf("kernel2", "Dense_1/kernel", squeeze),
  Leaf("bias2", "Dense_1/bias", squeeze),
)
_MIXER_OLD_NPZ = Table(
  "old npz",
  (
    ("embedding", "stem", KERNEL),
    ("Mixer/encoderblock_{i}/LayerNorm_0", f"{_MIXER_BLOCK}/LayerNorm_0", SCALE),
    ("Mixer/encoderblock_{i}/token_mixing_phase_0", f"{_MIXER_BLOCK}/token_mixing", _OLD_MLP),
    ("Mixer/encoderblock_{i}/LayerNorm_1", f"{_MIXER_BLOCK}/LayerNorm_1", SCALE),
    ("Mixer/encoderblock_{i}/channel_mixing_phase_0", f"{_MIXER_BLOCK}/channel_mixing", _OLD_MLP),
    ("Mixer/encoder_norm", "pre_head_layer_norm", SCALE),
    ("head", "head", KERNEL),
  ),
  separator="/",
  read_only=True,
)

# No official S2-MLP was ever released, so there are no names but ours.
_S2MLP_OWN = Table(
  "mlpvision",
  (
    ("stem", "stem", KERNEL),
    ("stem_norm", "stem_norm", SCALE),
    ("block_{i}.spatial_fc1", "block_{i}/spatial_fc1", KERNEL),
    ("block_{i}.spatial_fc2", "block_{i}/spatial_fc2", KERNEL),
    ("block_{i}.spatial_norm", "block_{i}/spatial_norm", SCALE),
    ("block_{i}.channel_mixing.Dense_0", "block_{i}/channel_mixing/Dense_0", KERNEL),
    ("block_{i}.channel_mixing.Dense_1", "block_{i}/channel_mixing/Dense_1", KERNEL),
    ("block_{i}.channel_norm", "block_{i}/channel_norm", SCALE),
    ("head", "head", KERNEL),
  ),
)

_STAGED, _STAGED_OURS = "layers.{s}.blocks.{i}", "stage_{s}_block_{i}"

_ASMLP_OFFICIAL = Table(
  "official",
  (
    ("patch_embed.proj", "stem", CONV),
    ("patch_embed.norm", "stem_norm", NORM),
    (f"{_STAGED}.norm1", f"{_STAGED_OURS}/norm1", NORM),
    (f"{_STAGED}.axial_shift.conv1", f"{_STAGED_OURS}/axial_shift/conv1", CONV1X1),
    (f"{_STAGED}.axial_shift.norm1", f"{_STAGED_OURS}/axial_shift/norm1", NORM),
    (f"{_STAGED}.axial_shift.conv2_1", f"{_STAGED_OURS}/axial_shift/conv2_1", CONV1X1),
    (f"{_STAGED}.axial_shift.conv2_2", f"{_STAGED_OURS}/axial_shift/conv2_2", CONV1X1),
    (f"{_STAGED}.axial_shift.norm2", f"{_STAGED_OURS}/axial_shift/norm2", NORM),
    (f"{_STAGED}.axial_shift.conv3", f"{_STAGED_OURS}/axial_shift/conv3", CONV1X1),
    (f"{_STAGED}.norm2", f"{_STAGED_OURS}/norm2", NORM),
    (f"{_STAGED}.mlp.fc1", f"{_STAGED_OURS}/channel_mixing/Dense_0", CONV1X1),
    (f"{_STAGED}.mlp.fc2", f"{_STAGED_OURS}/channel_mixing/Dense_1", CONV1X1),
    ("layers.{s}.downsample.norm", "merge_{s}/norm", NORM),
    ("layers.{s}.downsample.reduction", "merge_{s}/reduction", CONV1X1),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

_RESMLP_TIMM = Table(
  "timm",
  (
    ("stem.proj", "stem", CONV),
    ("blocks.{i}.norm1", "block_{i}/norm1", AFFINE_3D),
    ("blocks.{i}.linear_tokens", "block_{i}/linear_tokens", DENSE),
    ("blocks.{i}.norm2", "block_{i}/norm2", AFFINE_3D),
    ("blocks.{i}.mlp_channels.fc1", "block_{i}/channel_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp_channels.fc2", "block_{i}/channel_mixing/Dense_1", DENSE),
    ("blocks.{i}", "block_{i}", (Leaf("ls1", "layer_scale1"), Leaf("ls2", "layer_scale2"))),
    ("norm", "norm", AFFINE_3D),
    ("head", "head", DENSE),
  ),
)

_RESMLP_OFFICIAL = Table(
  "official",  # facebookresearch/deit
  (
    ("patch_embed.proj", "stem", CONV),
    ("blocks.{i}.norm1", "block_{i}/norm1", AFFINE),
    ("blocks.{i}.attn", "block_{i}/linear_tokens", DENSE),
    ("blocks.{i}.norm2", "block_{i}/norm2", AFFINE),
    ("blocks.{i}.mlp.fc1", "block_{i}/channel_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp.fc2", "block_{i}/channel_mixing/Dense_1", DENSE),
    ("blocks.{i}", "block_{i}", (Leaf("gamma_1", "layer_scale1"), Leaf("gamma_2", "layer_scale2"))),
    ("norm", "norm", AFFINE),
    ("head", "head", DENSE),
  ),
)

_CHANNELS_LAST = (lambda a: a.transpose(0, 2, 3, 1), lambda a: a.transpose(0, 3, 1, 2))

_FF_OFFICIAL = Table(
  "official",
  (
    ("", "", (Leaf("cls_token", "cls_token"),)),
    ("pos_encoding", "", (Leaf("cls_pos_embed", "cls_pos_embedding"),)),
    ("pos_encoding", "", (Leaf("pos_embed", "pos_embedding", *_CHANNELS_LAST),)),
    ("patch_embed.proj", "stem", CONV),
    ("blocks.{i}.norm1", "block_{i}/norm1", NORM),
    ("blocks.{i}.mlp1.fc1", "block_{i}/channel_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp1.fc2", "block_{i}/channel_mixing/Dense_1", DENSE),
    ("blocks.{i}.norm2", "block_{i}/norm2", NORM),
    ("blocks.{i}.mlp2.fc1", "block_{i}/token_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp2.fc2", "block_{i}/token_mixing/Dense_1", DENSE),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)

_VIT_TIMM = Table(
  "timm",  # DeiT's repository has the same
  (
    ("", "", (Leaf("cls_token", "cls_token"), Leaf("pos_embed", "pos_embedding"))),
    ("patch_embed.proj", "stem", CONV),
    ("blocks.{i}.norm1", "block_{i}/norm1", NORM),
    ("blocks.{i}.attn.qkv", "block_{i}/attention/qkv", DENSE),
    ("blocks.{i}.attn.proj", "block_{i}/attention/proj", DENSE),
    ("blocks.{i}.norm2", "block_{i}/norm2", NORM),
    ("blocks.{i}.mlp.fc1", "block_{i}/channel_mixing/Dense_0", DENSE),
    ("blocks.{i}.mlp.fc2", "block_{i}/channel_mixing/Dense_1", DENSE),
    ("norm", "norm", NORM),
    ("head", "head", DENSE),
  ),
)


def _bias_table_in(array):
  side = round(len(array) ** 0.5)
  return array.reshape(side, side, -1)


_BIAS_TABLE = Leaf(
  "attn.relative_position_bias_table",
  "relative_position_bias",
  _bias_table_in,
  lambda array: array.reshape(-1, array.shape[-1]),
)


def _swin(name, merging, head, **kwargs):
  """The official code ends a stage with its patch merging, timm starts the next one with it."""
  return Table(
    name,
    (
      ("patch_embed.proj", "stem", CONV),
      ("patch_embed.norm", "stem_norm", NORM),
      (f"{_STAGED}.norm1", f"{_STAGED_OURS}/norm1", NORM),
      (_STAGED, _STAGED_OURS, (_BIAS_TABLE,)),
      (f"{_STAGED}.attn.qkv", f"{_STAGED_OURS}/attention/qkv", DENSE),
      (f"{_STAGED}.attn.proj", f"{_STAGED_OURS}/attention/proj", DENSE),
      (f"{_STAGED}.norm2", f"{_STAGED_OURS}/norm2", NORM),
      (f"{_STAGED}.mlp.fc1", f"{_STAGED_OURS}/channel_mixing/Dense_0", DENSE),
      (f"{_STAGED}.mlp.fc2", f"{_STAGED_OURS}/channel_mixing/Dense_1", DENSE),
      (f"{merging}.downsample.norm", "merge_{s}/norm", NORM),
      (f"{merging}.downsample.reduction", "merge_{s}/reduction", DENSE),
      ("norm", "norm", NORM),
      (head, "head", DENSE),
    ),
    ignore=r"relative_position_index$|attn_mask$",  # follow from the window size
    **kwargs,
  )


_SWIN_TIMM = _swin("timm", "layers.{s+1}", "head.fc")
_SWIN_OFFICIAL = _swin("official", "layers.{s}", "head", marker="layers.0.downsample.reduction.weight")

TABLES = {
  mixer.MlpMixer: (_MIXER_TIMM, _MIXER_NPZ, _MIXER_OLD_NPZ),
  s2mlp.S2MLP: (_S2MLP_OWN,),
  asmlp.ASMLP: (_ASMLP_OFFICIAL,),
  resmlp.ResMLP: (_RESMLP_TIMM, _RESMLP_OFFICIAL),
  ff.FF: (_FF_OFFICIAL,),
  vit.ViT: (_VIT_TIMM,),
  swin.Swin: (_SWIN_TIMM, _SWIN_OFFICIAL),
}
# Around the names of a whole file: data-parallel and compiled PyTorch modules; Flax training states.
PREFIXES = ("module.", "_orig_mod.", "opt/target/", "params/")


def strip_prefixes(names: Collection[str]) -> dict[str, str]:
  """{name without the prefixes: name}; where some names have a prefix, those without it are no weights."""
  short = {name: name for name in names}
  for prefix in (*PREFIXES, *PREFIXES):  # twice, for they nest in either order
    inside = {key.removeprefix(prefix): name for key, name in short.items() if key.startswith(prefix)}
    short = inside or short
  return short


def identify(names: Collection[str]) -> tuple[type[nn.Module] | None, Table | None]:
  """(module class, table) of the family and source that knows most of the names; (None, None) if none knows half."""
  best, found = len(names) / 2, (None, None)
  for module, tables in TABLES.items():
    for table in tables:
      if table.marker and table.marker not in names:
        continue
      known = sum(table.skips(name) or table.ours(name) is not None for name in names)
      if known > best:
        best, found = known, (module, table)
  return found


def table_for(module: nn.Module, file_format: str) -> Table | None:
  """The table by which a family's parameters are written in a format, or None."""
  writable = [table for table in TABLES[type(module)] if not table.read_only]
  return next((table for table in writable if (table.name == "npz") == (file_format == "npz")), None)
