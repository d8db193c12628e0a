"""The record at the end of each family's file: what the rest of the package must know about the family.

Weight files, resizing, learning-rate multipliers, the model axis and tests iterate over `models.FAMILIES`. Parameters
follow the naming contract in docs/design.md.
"""

from collections.abc import Callable, Mapping
import dataclasses
import itertools
import math
import re
from typing import Any

from flax import linen as nn

from mlpvision.models.naming import Table, numbers, regex

Shapes = Mapping[str, tuple[int, ...]]  # {path of a parameter, e.g. "block_0/channel_mixing/Dense_0/bias": shape}

# Tensor parallelism: only the hidden channels of channel MLPs are sharded over the model axis. Sharded channels of a
# shift or a token-mixing layer would all have to be communicated.
CHANNEL_MLP = (
  (r"channel_mixing/Dense_0/kernel$", (None, "model")),
  (r"channel_mixing/Dense_0/bias$", ("model",)),
  (r"channel_mixing/Dense_1/kernel$", ("model", None)),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
  """One model family.

  Attributes:
    module: the network, a `base.Backbone`.
    variants: {name for `models.create`: attributes of the module}.
    arguments: maps the shapes of parameters to the module's attributes that they determine, with None for an ambiguous
      one; usually `isotropic` or `pyramid`. Raises KeyError, IndexError or ValueError for other parameters.
    block: template of the blocks' names. Each block is a layer of layer-wise learning rates, in numerical order.
    patches: maps a module and the shapes of its parameters to their number of patches, or (rows, columns); None for any
      image size.
    resize: how to adapt parameters to other patches, a key of `weights.resize.WAYS`; None if this is impossible.
    model_axis: shardings over the mesh's model axis: (regex for a path, mesh axis of each dimension).
    dense: attributes of a backbone for detection and segmentation, where the original differs from the classifier.
    free: attributes that do not change the meaning of parameters, such as initial values, in addition to
      `weights.loading.RUN_OPTIONS`.
    tables: names in published weights, see `naming`, or our own if there are none. Files in .safetensors format are
      written with the first table that is not read-only.
  """

  module: type[nn.Module]
  variants: Mapping[str, Mapping[str, Any]]
  arguments: Callable[[Shapes], dict[str, Any]]
  block: str = "block_{i}"
  patches: Callable[[nn.Module, Shapes], int | tuple[int, int]] | None = None
  resize: str | None = None
  model_axis: tuple[tuple[str, tuple], ...] = CHANNEL_MLP
  dense: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  free: tuple[str, ...] = ()
  tables: tuple[Table, ...] = (Table("mlpvision"),)


def count(shapes: Shapes, template: str) -> int:
  """The highest i of a top-level name such as "block_{i}", plus 1; gaps are later reported as missing parameters."""
  numbers = [int(match[1]) for path in shapes if (match := re.match(regex(template).pattern + "/", path))]
  return max(numbers, default=-1) + 1


def stem(shapes: Shapes) -> dict[str, int]:
  """patch_size and hidden_dim."""
  patch_size, _, _, hidden_dim = shapes["stem/kernel"]
  return dict(patch_size=patch_size, hidden_dim=hidden_dim)


def isotropic(shapes: Shapes) -> dict[str, Any]:
  """patch_size, hidden_dim, num_blocks and mlp_ratio of a plain stack of blocks."""
  return dict(**stem(shapes), num_blocks=count(shapes, "block_{i}"), mlp_ratio=_mlp_ratio(shapes, "block_0"))


def pyramid(shapes: Shapes) -> dict[str, Any]:
  """patch_size, hidden_dim, depths and mlp_ratio of a pyramid."""
  return dict(**stem(shapes), depths=_depths(shapes), mlp_ratio=_mlp_ratio(shapes, "stage_0_block_0"))


def wide_stages(shapes: Shapes) -> dict[str, Any]:
  """hidden_dim, depths and mlp_ratio of a pyramid whose stages have their own widths and ratios: tuples."""
  depths = _depths(shapes)
  blocks = [f"stage_{stage}_block_0" for stage in range(len(depths))]
  widths = tuple(shapes[f"{block}/channel_mixing/Dense_0/kernel"][0] for block in blocks)
  return dict(hidden_dim=widths, depths=depths, mlp_ratio=tuple(_mlp_ratio(shapes, block) for block in blocks))


def _depths(shapes):
  found = stages(shapes)
  return tuple(found[stage] for stage in itertools.takewhile(found.__contains__, itertools.count()))


def stages(shapes: Shapes) -> dict[int, int]:
  """{s: number of blocks "stage_{s}_block_{i}"}."""
  found = {}
  for name in {path.partition("/")[0] for path in shapes}:
    if place := numbers(name, "stage_{s}_block_{i}"):
      found[place["s"]] = max(found.get(place["s"], 0), place["i"] + 1)
  return found


def _mlp_ratio(shapes, block):
  return ratio(*shapes[f"{block}/channel_mixing/Dense_0/kernel"])


def ratio(channels: int, hidden_dim: int) -> float:
  """An mlp_ratio with int(channels * ratio) == hidden_dim, also where the quotient is rounded down."""
  quotient = hidden_dim / channels
  return quotient if int(channels * quotient) == hidden_dim else math.nextafter(quotient, math.inf)
