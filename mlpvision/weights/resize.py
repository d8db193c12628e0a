"""Adapts parameters to another image size.

S2-MLP, S2-MLPv2, AS-MLP, CycleMLP, PoolFormer and Swin accept any size; Swin's windows can be resized. A Mixer can grow
by integer factors, as in its paper. ViT's position embedding is interpolated. FF, ResMLP, gMLP and ViP cannot be
resized.
"""

from collections.abc import Mapping
import math
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import numpy as np

from mlpvision import models

# The parameter of Keys' cubic kernel: -0.75 in PyTorch, or -0.5 with antialiasing, as in Pillow.
_CUBIC, _CUBIC_ANTIALIAS = -0.75, -0.5


def fit(
  module: nn.Module,
  params: Mapping[str, Any],
  image_size: int | tuple[int, int] | None = None,
  window_size: int | None = None,
) -> tuple[nn.Module, Mapping[str, Any]]:
  """(module, params) for another image size or, in Swin, window size. Does not change its arguments.

  Args:
    module: of params.
    params: nested dict.
    image_size: int or (height, width) in pixels.
    window_size: for Swin.

  Raises:
    ValueError: the family or the parameters cannot be adapted to this size.
  """
  name = type(module).__name__
  if window_size is not None:
    if not hasattr(module, "window_size"):
      raise ValueError(f"{name} has no windows: omit window_size")
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
  needed = family.patches(module, {path: array.shape for path, array in flatten_dict(params, sep="/").items()})
  if needed not in (grid, math.prod(grid)):
    needed = needed if isinstance(needed, int) else "x".join(map(str, needed))
    raise ValueError(f"{name} parameters for {needed} patches cannot be adapted to {grid[0]}x{grid[1]}")
  return module, params


def image_size_of(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
  """An image size (height, width) in pixels that parameters ({path: shape}) accept.

  If they only determine the number of patches, all patches are in one row.
  """
  family = models.family_of(module)
  if family.patches is None:
    return module.feature_strides[-1], module.feature_strides[-1]
  rows, columns = _patches(module, shapes)
  return rows * module.patch_size, columns * module.patch_size


def _patches(module, shapes):
  """(rows, columns); at least (1, 1), also for incomplete parameters, which `loading` reports."""
  try:
    found = models.family_of(module).patches(module, shapes)
  except LookupError:
    found = 1
  rows, columns = (1, found) if isinstance(found, int) else found
  return max(rows, 1), max(columns, 1)


def _mixer_to_grid(module, params, grid):
  tokens = params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"].shape[0]
  if tokens == math.prod(grid):
    return module, params
  # Both grids have the same proportions, so the numbers of tokens determine the factor, which must be an integer.
  factor = math.isqrt(math.prod(grid) // tokens)
  if factor < 2 or factor**2 * tokens != math.prod(grid) or grid[0] % factor or grid[1] % factor:
    raise ValueError(
      f"Mixer parameters for {tokens} patches cannot be adapted to {grid[0]}x{grid[1]}: both sides must grow by the"
      " same integer factor"
    )
  return mixer_tokens(module, params, factor, (grid[0] // factor, grid[1] // factor))


def mixer_tokens(
  module: nn.Module, params: Mapping[str, Any], factor: int, grid: tuple[int, int] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
  """A Mixer for `factor` times the resolution (arXiv 2105.01601, Sec. 3 and App. C): (module, params).

  The new grid has factor x factor spatial parts. The token MLPs are initialized to process each part separately: the
  kernels have one copy of the old kernel per part, and zeros between parts. Training makes them dense.

  Args:
    module: an MlpMixer.
    params: its parameters, not changed.
    factor: K; tokens and tokens_mlp_dim grow by K * K.
    grid: (rows, columns) of the old patches; a square by default.
  """
  rows, columns = _grid(len(params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"]), grid)
  # Tokens are in row-major order over the new grid, so the parts are not contiguous. For each new token: its part, and
  # its place in the part.
  y, x = np.divmod(np.arange(rows * columns * factor**2), columns * factor)
  part = y // rows * factor + x // columns
  place = y % rows * columns + x % columns
  in_part = part[:, None] == np.arange(factor**2)

  def spread(kernel):
    """[S, D] -> [K*K*S, K*K*D], hidden units part by part."""
    return (kernel[place][:, None, :] * in_part[:, :, None]).reshape(len(place), -1).astype(kernel.dtype)

  grow = {
    "token_mixing/Dense_0/kernel": spread,
    "token_mixing/Dense_0/bias": lambda bias: np.tile(bias, factor**2),
    "token_mixing/Dense_1/kernel": lambda kernel: np.ascontiguousarray(spread(kernel.T).T),
    "token_mixing/Dense_1/bias": lambda bias: bias[place],
  }
  flat = flatten_dict(params, sep="/")
  for path, array in flat.items():
    if change := grow.get(path.partition("/")[2]):
      flat[path] = change(np.asarray(array))
  return module.clone(tokens_mlp_dim=module.tokens_mlp_dim * factor**2), unflatten_dict(flat, sep="/")


def vit_positions(
  params: Mapping[str, Any], grid: tuple[int, int], old_grid: tuple[int, int] | None = None
) -> Mapping[str, Any]:
  """ViT parameters with the position embedding interpolated to another grid of patches (rows, columns).

  Bicubic with antialiasing, as in timm; the class token's embedding does not change. old_grid: a square by default.
  """
  positions = np.asarray(params["pos_embedding"])
  cls, patches = positions[:, :1], positions[0, 1:]
  rows, columns = _grid(len(patches), old_grid)
  if tuple(grid) == (rows, columns):
    return params
  patches = _resample(patches.reshape(rows, columns, -1), grid, antialias=True)
  return {**params, "pos_embedding": np.concatenate([cls, patches.reshape(1, -1, patches.shape[-1])], axis=1)}


def _grid(patches, grid):
  """grid, or a square of this number of patches; ValueError if the numbers differ."""
  rows, columns = grid or (math.isqrt(patches), math.isqrt(patches))
  if rows * columns != patches:
    raise ValueError(f"a grid of {rows}x{columns} does not have the {patches} patches of these parameters")
  return rows, columns


# How to adapt parameters to another grid of patches, by a family's `resize`.
WAYS = {
  "token_mixing": _mixer_to_grid,
  "pos_embedding": lambda module, params, grid: (module, vit_positions(params, grid)),
}


def swin_window(module: nn.Module, params: Mapping[str, Any], window_size: int) -> tuple[nn.Module, Mapping[str, Any]]:
  """Swin with another window size: (module, params).

  The relative position biases of each head are interpolated, bicubic without antialiasing, as the official code does
  when it loads weights. timm spaces the samples unevenly and gets other values.
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
  """float32 [h, w, C] -> [*size, C]: separable bicubic interpolation with PyTorch's conventions."""
  rows, columns = (_cubic_matrix(old, new, antialias) for old, new in zip(image.shape, size, strict=False))
  return np.einsum("ih,jw,hwc->ijc", rows, columns, image, optimize=True).astype(np.float32)


def _cubic_matrix(old, new, antialias):
  """float64 [new, old]; pixel centers correspond (align_corners=False).

  With antialiasing, the kernel is wider when the image shrinks, and pixels outside the image have no weight. Without
  it, the kernel keeps its width and the border is repeated.
  """
  scale = old / new
  widen = max(scale, 1.0) if antialias else 1.0
  a = _CUBIC_ANTIALIAS if antialias else _CUBIC
  center = (np.arange(new) + 0.5) * scale - 0.5
  source = np.arange(-2 * math.ceil(widen) - 2, old + 2 * math.ceil(widen) + 2)  # extends beyond the border
  distance = np.abs(source - center[:, None]) / widen
  near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
  far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
  weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
  if antialias:
    weights = weights * ((source >= 0) & (source < old))
    weights /= weights.sum(1, keepdims=True)
  matrix = np.zeros((new, old))
  np.add.at(matrix.T, np.clip(source, 0, old - 1), weights.T)
  return matrix
