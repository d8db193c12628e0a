"""The parameters that a module needs, compared with those that there are."""

from collections.abc import Mapping
import math
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp

from mlpvision import models
from mlpvision.models.naming import numbers
from mlpvision.weights.resize import image_size_of

Shapes = Mapping[str, tuple[int, ...]]
_MAX_STAGES = 10  # each doubles the channels
_MAX_PATCHES = 1 << 18  # of an image: 2,048 pixels in patches of 4


def shortest(module: nn.Module) -> nn.Module:
  """The module with one block, or one block in each stage."""
  short = {"depths": (1,) * len(module.depths)} if hasattr(module, "depths") else {"num_blocks": 1}
  return module.clone(**short)


def depths(module: nn.Module) -> tuple[int, ...]:
  """The number of blocks of each stage."""
  return tuple(module.depths) if hasattr(module, "depths") else (module.num_blocks,)


def expected(module: nn.Module, shapes: Shapes) -> dict[str, tuple[int, ...]]:
  """{path: shape} of a module's parameters, for images that parameters of these shapes accept, in alphabetical order.

  One block of each stage is traced, and repeated: the time does not depend on how many blocks a file claims to have.

  Raises ValueError: the module has more blocks than there are arrays, or it cannot be traced.
  """
  return _repeated(module, _traced(module, shapes)["params"])


def expected_dense(module: nn.Module, shapes: Shapes) -> dict[str, tuple[int, ...]]:
  """Like `expected`, for the variables of a model with a backbone.

  Parameters have their paths, such as "decode_head/conv_seg/bias"; statistics have paths such as
  "batch_stats/decode_head/bottleneck/bn/mean".
  """
  variables = _traced(module, shapes)
  params = variables.pop("params")
  found = _repeated(module.backbone, params.pop("backbone"))
  others = flatten_dict({**params, **variables}, sep="/")
  found = {f"backbone/{path}": shape for path, shape in found.items()}
  return dict(sorted((found | {path: leaf.shape for path, leaf in others.items()}).items()))


def _traced(module, shapes):
  """Shapes of the variables of a module with the shortest backbone; shapes: of parameters."""
  backbone = getattr(module, "backbone", module)
  family, blocks = models.family_of(backbone), depths(backbone)
  if sum(blocks) > len(shapes) or len(blocks) > _MAX_STAGES:
    raise ValueError(f"{sum(blocks)} blocks in {len(blocks)} stages do not fit {len(shapes)} arrays")
  if backbone is not module:
    shapes = {path.removeprefix("backbone/"): shape for path, shape in shapes.items() if path.startswith("backbone/")}
  size = (8 * backbone.size_divisor,) * 2 if family.patches is None else image_size_of(backbone, shapes)
  images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  short = shortest(module) if backbone is module else module.clone(backbone=shortest(backbone))
  try:
    return dict(jax.eval_shape(short.init, jax.random.key(0), images))
  except Exception as error:  # tracing with wrong sizes can raise any exception
    raise ValueError(str(error) or type(error).__name__) from error


def _repeated(module, params):
  """{path: shape} of a family's module, from the parameters of the shortest one."""
  family, found = models.family_of(module), {}
  flat = flatten_dict(params, sep="/")
  places = {path: numbers(path.partition("/")[0], family.block) for path in flat}
  stages = sorted({place.get("s", 0) for place in places.values() if place})  # ViP's have gaps
  for path, leaf in flat.items():
    block, slash, rest = path.partition("/")
    place = places[path]
    copies = 1 if place is None else depths(module)[stages.index(place.get("s", 0))]
    for i in range(copies):
      name = block if place is None else family.block.format(**{**place, "i": i})
      found[f"{name}{slash}{rest}"] = leaf.shape
  return dict(sorted(found.items()))


def check_image_size(module: nn.Module, shapes: Shapes, image_size: int | tuple[int, int]) -> None:
  """Raises ValueError if a module with parameters of these shapes does not accept images of this size."""
  height, width = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
  grid = (height // module.patch_size, width // module.patch_size)
  if height % module.size_divisor or width % module.size_divisor or math.prod(grid) > _MAX_PATCHES:
    raise ValueError(f"{type(module).__name__} with patches of {module.patch_size} cannot take {height}x{width} images")
  family = models.family_of(module)
  needed: Any = None if family.patches is None else family.patches(module, shapes)
  if needed not in (None, grid, math.prod(grid)):
    raise ValueError(f"its parameters are for {needed} patches, but images of {height}x{width} have {grid}")
