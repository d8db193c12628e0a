"""What the rest of the package has to know of a model family: a record at the end of the family's file.

`models.FAMILIES` has all of them, and models, weight files, resizing, learning rates by layer, the model axis and the
tests iterate over it. Parameters follow the contract of names in docs/design.md.
"""

from collections.abc import Callable, Mapping
import dataclasses
import re
from typing import Any

from flax import linen as nn

from mlpvision.models.naming import Table, regex

Shapes = Mapping[str, tuple[int, ...]]  # of parameters, by their paths, such as "block_0/channel_mixing/Dense_0/bias"

# Tensor parallelism: the hidden channels of the channel MLP are cut over the model axis. Nothing else is: where the
# channels of a shift or of a token-mixing layer are apart, all of them would travel.
CHANNEL_MLP = (
  (r"channel_mixing/Dense_0/kernel$", (None, "model")),
  (r"channel_mixing/Dense_0/bias$", ("model",)),
  (r"channel_mixing/Dense_1/kernel$", ("model", None)),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
  """One model family.

  Attributes:
    module: its class, a `layers.Backbone`.
    variants: {name for `models.create`: attributes of the module}.
    arguments: from the shapes of parameters to the attributes of the module that they tell, None for one that they
      leave open; `isotropic` or `pyramid` for most. KeyError, IndexError or ValueError: no such parameters.
    block: the name of a block. Blocks are the layers of layer-wise learning rates, in the order of their numbers.
    patches: from the shapes of parameters to the number of patches, or (rows, columns), that they are for; None where
      they serve any image size.
    resize: how parameters are made into some for other patches, a key of `weights.resize.WAYS`; None where they cannot.
    model_axis: what is cut over the mesh's model axis: (regex in a path, axis of each dimension).
    free: attributes that do not change what given parameters mean, beside those that no family's parameters depend on
      (`weights.loading.RUN_OPTIONS`): initial values, for example.
    tables: the names that published weights use, see `naming`, or our own where there are none. The first that can be
      written is the one for .safetensors files.
  """

  module: type[nn.Module]
  variants: Mapping[str, Mapping[str, Any]]
  arguments: Callable[[Shapes], dict[str, Any]]
  block: str = "block_{i}"
  patches: Callable[[Shapes], int | tuple[int, int]] | None = None
  resize: str | None = None
  model_axis: tuple[tuple[str, tuple], ...] = CHANNEL_MLP
  free: tuple[str, ...] = ()
  tables: tuple[Table, ...] = (Table("mlpvision"),)


def count(shapes: Shapes, template: str) -> int:
  """One more than the highest number of a top-level name like "block_{i}"; a gap then shows as missing parameters."""
  numbers = [int(match[1]) for path in shapes if (match := re.match(regex(template).pattern + "/", path))]
  return max(numbers, default=-1) + 1


def stem(shapes: Shapes) -> dict[str, int]:
  """patch_size and hidden_dim, from the patch embedding."""
  patch_size, _, _, hidden_dim = shapes["stem/kernel"]
  return dict(patch_size=patch_size, hidden_dim=hidden_dim)


def isotropic(shapes: Shapes) -> dict[str, Any]:
  """The attributes of a plain stack of blocks: `stem`'s, num_blocks and mlp_ratio."""
  ratio = _mlp_ratio(shapes, "block_0")
  return dict(**stem(shapes), num_blocks=count(shapes, "block_{i}"), mlp_ratio=ratio)


def pyramid(shapes: Shapes) -> dict[str, Any]:
  """The attributes of a pyramid: `stem`'s, depths and mlp_ratio."""
  stages = 0
  while count(shapes, f"stage_{stages}_block_{{i}}"):
    stages += 1
  depths = tuple(count(shapes, f"stage_{stage}_block_{{i}}") for stage in range(stages))
  return dict(**stem(shapes), depths=depths, mlp_ratio=_mlp_ratio(shapes, "stage_0_block_0"))


def _mlp_ratio(shapes, block):
  channels, hidden_dim = shapes[f"{block}/channel_mixing/Dense_0/kernel"]
  return hidden_dim / channels
