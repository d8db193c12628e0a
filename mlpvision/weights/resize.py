"""Parameters for one image size made into parameters for another.

S2-MLP and AS-MLP take any size as they are, and so does Swin, whose windows may be changed. A Mixer grows by whole
factors, as its paper does it; a ViT's position embedding is interpolated; FF and ResMLP stay at their size.
"""

from collections.abc import Mapping
import math
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import numpy as np

from mlpvision import models

# Keys' cubic kernel. PyTorch has -0.75 without antialiasing and, as Pillow, -0.5 with it.
_CUBIC, _CUBIC_ANTIALIAS = -0.75, -0.5


def fit(
  module: nn.Module,
  params: Mapping[str, Any],
  image_size: int | tuple[int, int] | None = None,
  window_size: int | None = None,
) -> tuple[nn.Module, Mapping[str, Any]]:
  """(module, params) for images of another size, or attention windows of another size.

  Args:
    module: as it fits params.
    params: nested dict, left as it is.
    image_size: int or (height, width) in pixels.
    window_size: for Swin.

  Raises:
    ValueError: an image size that this family, or these parameters, cannot be brought to.
  """
  name = type(module).__name__
  if window_size is not None:
    if not hasattr(module, "window_size"):
      raise ValueError(f"{name} has no windows: leave out window_size")
    module, params = swin_window(module, params, window_size)
  if image_size is None:
    return module, params
  height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
  if height % module.size_divisor or width % module.size_divisor:
    raise ValueError(f"{name} with patches of {module.patch_size} cannot take {height}x{width} images")
  family = models.family_of(module)
  if family.patches is None:
    return module, params
  grid = (height // module.patch_size, width // module.patch_size)
  if family.resize:
    return WAYS[family.resize](module, params, grid)
  patches = math.prod(_patches(family, flatten_dict(params, sep="/")))
  if patches != math.prod(grid):
    raise ValueError(f"{name} parameters for {patches} patches cannot be made into some for {grid[0]}x{grid[1]}")
  return module, params


def image_size_of(module: nn.Module, flat: Mapping[str, np.ndarray]) -> tuple[int, int]:
  """(height, width) in pixels that parameters ({path: array}) are for; any that works, where the family leaves it open.

  Where only the number of patches is known, they are in one row.
  """
  family = models.family_of(module)
  if family.patches is None:
    return module.feature_strides[-1], module.feature_strides[-1]
  rows, columns = _patches(family, flat)
  return rows * module.patch_size, columns * module.patch_size


def _patches(family, flat):
  """(rows, columns); where the parameters are not whole, which `loading` reports, some."""
  try:
    found = family.patches({path: array.shape for path, array in flat.items()})
  except LookupError:
    found = 1
  rows, columns = (1, found) if isinstance(found, int) else found
  return max(rows, 1), max(columns, 1)


def _mixer_to_grid(module, params, grid):
  tokens = params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"].shape[0]
  if tokens == math.prod(grid):
    return module, params
  # The old grid has the new one's proportions, and the factor is a whole number: both follow from the token counts.
  factor = math.isqrt(math.prod(grid) // tokens)
  if factor < 2 or factor**2 * tokens != math.prod(grid) or grid[0] % factor or grid[1] % factor:
    raise ValueError(
      f"Mixer parameters for {tokens} patches cannot be made into some for {grid[0]}x{grid[1]}: the new grid must be"
      " the old one times a whole number on both sides"
    )
  return mixer_tokens(module, params, factor, (grid[0] // factor, grid[1] // factor))


def mixer_tokens(
  module: nn.Module, params: Mapping[str, Any], factor: int, grid: tuple[int, int] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
  """A Mixer for `factor` times the resolution (arXiv 2105.01601, Sec. 3 and App. C): (module, params).

  The new grid of patches is cut into factor x factor spatial parts, and the enlarged token MLPs start as ones that
  treat each part by itself, as the old ones did: their kernels have a copy of the old kernel for every part and zeros
  between the parts. They are dense from the first training step on.

  Args:
    module: an MlpMixer.
    params: its parameters, left as they are.
    factor: K; tokens and tokens_mlp_dim grow by K * K.
    grid: (rows, columns) of the old patches; a square by default.
  """
  kernel = params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"]
  side = math.isqrt(len(kernel))
  rows, columns = grid or (side, side)
  if rows * columns != len(kernel):
    raise ValueError(f"a grid of {rows}x{columns} is not the {len(kernel)} patches of these parameters")
  # Tokens stay in row-major order over the whole new grid, in which no part is contiguous: for each new token,
  # the part that it lies in and its place there.
  y, x = np.divmod(np.arange(rows * columns * factor**2), columns * factor)
  part = y // rows * factor + x // columns
  place = y % rows * columns + x % columns
  in_part = part[:, None] == np.arange(factor**2)

  def spread(kernel):
    """[S, D] -> [K*K*S, K*K*D], hidden units part by part."""
    return (kernel[place][:, None, :] * in_part[:, :, None]).reshape(len(place), -1).astype(kernel.dtype)

  flat = flatten_dict(params, sep="/")
  for path, array in flat.items():
    if "/token_mixing/" not in path:
      continue
    array = np.asarray(array)
    if path.endswith("Dense_0/kernel"):
      flat[path] = spread(array)
    elif path.endswith("Dense_0/bias"):
      flat[path] = np.tile(array, factor**2)
    elif path.endswith("Dense_1/kernel"):
      flat[path] = np.ascontiguousarray(spread(array.T).T)
    else:
      flat[path] = array[place]
  return module.clone(tokens_mlp_dim=module.tokens_mlp_dim * factor**2), unflatten_dict(flat, sep="/")


def vit_positions(
  params: Mapping[str, Any], grid: tuple[int, int], old_grid: tuple[int, int] | None = None
) -> Mapping[str, Any]:
  """ViT parameters with the position embedding for another grid of patches (rows, columns).

  Bicubic with antialiasing, as timm does it; the class token's embedding stays. old_grid: a square by default.
  """
  positions = np.asarray(params["pos_embedding"])
  cls, patches = positions[:, :1], positions[0, 1:]
  side = math.isqrt(len(patches))
  rows, columns = old_grid or (side, side)
  if rows * columns != len(patches):
    raise ValueError(f"a grid of {rows}x{columns} is not the {len(patches)} patches of these parameters")
  if tuple(grid) == (rows, columns):
    return params
  patches = _resample(patches.reshape(rows, columns, -1), grid, antialias=True)
  return {**params, "pos_embedding": np.concatenate([cls, patches.reshape(1, -1, patches.shape[-1])], axis=1)}


# How parameters are made into some for another grid of patches: the `resize` of a family.
WAYS = {
  "token_mixing": _mixer_to_grid,
  "pos_embedding": lambda module, params, grid: (module, vit_positions(params, grid)),
}


def swin_window(module: nn.Module, params: Mapping[str, Any], window_size: int) -> tuple[nn.Module, Mapping[str, Any]]:
  """Swin with windows of another size: (module, params).

  The tables of relative position biases are interpolated head by head, bicubic without antialiasing, as the official
  code does when it loads weights (timm spaces the samples unevenly, which gives other values).
  """
  if window_size == module.window_size:
    return module, params
  side = 2 * window_size - 1
  flat = {
    path: _resample(np.asarray(array), (side, side), antialias=False) if path.endswith("_position_bias") else array
    for path, array in flatten_dict(params, sep="/").items()
  }
  return module.clone(window_size=window_size), unflatten_dict(flat, sep="/")


def _resample(image, size, antialias):
  """float32 [h, w, C] -> [*size, C] by separable bicubic interpolation with PyTorch's conventions."""
  rows, columns = (_cubic_matrix(old, new, antialias) for old, new in zip(image.shape, size, strict=False))
  return np.einsum("ih,jw,hwc->ijc", rows, columns, image, optimize=True).astype(np.float32)


def _cubic_matrix(old, new, antialias):
  """float64 [new, old]; pixel centres correspond (align_corners=False).

  Antialiasing widens the kernel when it shrinks, and leaves out what lies outside the image; without it the
  kernel keeps its width and the border is repeated.
  """
  scale = old / new
  widen = max(scale, 1.0) if antialias else 1.0
  a = _CUBIC_ANTIALIAS if antialias else _CUBIC
  centre = (np.arange(new) + 0.5) * scale - 0.5
  source = np.arange(-2 * math.ceil(widen) - 2, old + 2 * math.ceil(widen) + 2)  # reaches past the border
  distance = np.abs(source - centre[:, None]) / widen
  near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
  far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
  weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
  if antialias:
    weights = weights * ((source >= 0) & (source < old))
    weights /= weights.sum(1, keepdims=True)
  matrix = np.zeros((new, old))
  np.add.at(matrix.T, np.clip(source, 0, old - 1), weights.T)
  return matrix
