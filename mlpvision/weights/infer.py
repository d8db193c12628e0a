"""The constructor's arguments that a family's parameters give away by their names and shapes.

What they cannot tell keeps its default: shift_size and directions (shifts have no parameters), GELU's form.
"""

from collections.abc import Mapping
import re
from typing import Any

from flax import linen as nn

from mlpvision.models import asmlp, ff, mixer, resmlp, s2mlp, swin, vit


def _count(shapes, pattern):
  """One more than the highest number in paths of this pattern; a gap then shows as missing leaves."""
  numbers = [int(match[1]) for path in shapes if (match := re.match(pattern, path))]
  return max(numbers, default=-1) + 1


def num_classes(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
  """Width of the head; None without one."""
  return shapes["head/kernel"][-1] if "head/kernel" in shapes else None


def _stem(shapes):
  patch_size, _, _, hidden_dim = shapes["stem/kernel"]
  return dict(patch_size=patch_size, hidden_dim=hidden_dim)


def _mixer(shapes):
  return dict(
    **_stem(shapes),
    num_blocks=_count(shapes, r"MixerBlock_(\d+)/"),
    tokens_mlp_dim=shapes["MixerBlock_0/token_mixing/Dense_0/kernel"][1],
    channels_mlp_dim=shapes["MixerBlock_0/channel_mixing/Dense_0/kernel"][1],
  )


def _ratio(shapes, path):
  channels, hidden = shapes[path]
  return hidden / channels


def _s2mlp(shapes):
  without_norm = {} if "block_0/spatial_norm/scale" in shapes else dict(norm="none")
  without_stem_norm = {} if "stem_norm/scale" in shapes else dict(stem_norm="none")
  return dict(
    **_stem(shapes),
    num_blocks=_count(shapes, r"block_(\d+)/"),
    mlp_ratio=_ratio(shapes, "block_0/channel_mixing/Dense_0/kernel"),
    **without_norm,
    **without_stem_norm,
  )


def _isotropic(shapes):
  ratio = _ratio(shapes, "block_0/channel_mixing/Dense_0/kernel")
  return dict(**_stem(shapes), num_blocks=_count(shapes, r"block_(\d+)/"), mlp_ratio=ratio)


def _vit(shapes):
  arguments = _isotropic(shapes)
  # 64 channels a head in every published ViT; other widths can be cut into heads in more than one way.
  heads, rest = divmod(arguments["hidden_dim"], 64)
  return dict(**arguments, num_heads=None if rest else heads)


def _stages(shapes):
  stages = _count(shapes, r"stage_(\d+)_block_")
  return dict(
    **_stem(shapes),
    depths=tuple(_count(shapes, rf"stage_{stage}_block_(\d+)/") for stage in range(stages)),
    mlp_ratio=_ratio(shapes, "stage_0_block_0/channel_mixing/Dense_0/kernel"),
  )


def _swin(shapes):
  arguments = _stages(shapes)
  tables = [shapes[f"stage_{stage}_block_0/relative_position_bias"] for stage in range(len(arguments["depths"]))]
  window_size = (tables[0][0] + 1) // 2
  return dict(**arguments, num_heads=tuple(heads for _, _, heads in tables), window_size=window_size)


_BY_FAMILY = {
  mixer.MlpMixer: _mixer,
  s2mlp.S2MLP: _s2mlp,
  asmlp.ASMLP: _stages,
  resmlp.ResMLP: _isotropic,
  ff.FF: _isotropic,
  vit.ViT: _vit,
  swin.Swin: _swin,
}


def arguments(module_class: type[nn.Module], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
  """{argument: value} of the module that has parameters of these shapes; None where they leave a choice.

  Args:
    module_class: of the family.
    shapes: {our path: shape}.

  Raises:
    KeyError: a leaf that the sizes are read from is missing; its path is the key.
    IndexError, ValueError, ZeroDivisionError: such a leaf has a shape that it cannot have.
  """
  return _BY_FAMILY[module_class](shapes)
