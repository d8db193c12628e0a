"""The parameter-free shifts of S2-MLP, AS-MLP and CycleMLP.

All divide the channels of x [B, H, W, C] into groups, contiguous or (CycleMLP) interleaved, and shift each group over
the map. `by_roll` is the definition: `jnp.roll`, and a mask of the channels and of the positions whose source is inside
the map. `forms.shift` compiles to faster code and is bit-identical in value and gradient. `shifted_product` combines a
shift and the product after it.
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp

from mlpvision.models import forms

# A direction (dy, dx) is where features move: (1, 0) is down, (0, 1) is right.
UP, DOWN, LEFT, RIGHT = (-1, 0), (1, 0), (0, -1), (0, 1)

# The sets in S2-MLP's Table 7, with their letters. "four" is in the order of Algorithm 1.
DIRECTIONS = {
  "four": (RIGHT, LEFT, DOWN, UP),  # a, the paper's default
  "eight": (RIGHT, LEFT, DOWN, UP, (1, 1), (1, -1), (-1, 1), (-1, -1)),  # b
  "up_right": (UP, RIGHT),  # c
  "left_down": (LEFT, DOWN),  # d
  "up_down": (UP, DOWN),  # e
  "left_right": (LEFT, RIGHT),  # f
  "up": (UP,),  # g
  "down": (DOWN,),  # h
  "left": (LEFT,),  # i
  "right": (RIGHT,),  # j
  "none": ((0, 0),),  # w/o
}
BORDERS = ("keep", "zero")
PADDINGS = ("zero", "circular", "reflect", "replicate")


def spatial_shift(
  x: jax.Array,
  directions: str | Sequence[tuple[int, int]] = "four",
  border: str = "keep",
  cells: jax.Array | None = None,
) -> jax.Array:
  """S2-MLP's spatial shift (arXiv 2106.07477, Algorithm 1 and Eq. 3).

  Args:
    x: [B, H, W, C], any dtype; C divisible by the number of directions.
    directions: a name in `DIRECTIONS`, or a sequence of (dy, dx); one equal group of channels for each.
    border: the value at a position whose source is outside the map. "keep": its own value, as in Algorithm 1, which
      only overwrites the interior. "zero": 0, as in the depthwise convolution that the paper describes.
    cells: int [B, 2], rows and columns of each example in the map, see `canvas`; the map ends there.

  Returns:
    [B, H, W, C]. At (y, x), a group with direction (dy, dx) has the value of (y - dy, x - dx).

  Raises:
    ValueError: unknown name, or C not divisible by the number of directions.
  """
  if border not in BORDERS:
    raise ValueError(f"unknown border {border!r}; one of {', '.join(BORDERS)}")
  offsets = resolve_directions(directions)
  if x.shape[-1] % len(offsets):
    raise ValueError(f"{x.shape[-1]} channels are not divisible into {len(offsets)} equal groups ({directions=})")
  width = x.shape[-1] // len(offsets)
  groups = tuple((offset, width) for offset in offsets)
  shifted = _shift(x, groups, border)
  if cells is None:
    return shifted
  return jnp.where(forms.has_source(x.shape, groups, cells), shifted, x if border == "keep" else jnp.zeros_like(x))


def resolve_directions(directions: str | Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
  """((dy, dx), ...) of a name in `DIRECTIONS` or a sequence of integer pairs."""
  if isinstance(directions, str):
    if directions not in DIRECTIONS:
      raise ValueError(f"unknown directions {directions!r}; one of {', '.join(DIRECTIONS)}, or (dy, dx) pairs")
    return DIRECTIONS[directions]
  return tuple((int(dy), int(dx)) for dy, dx in directions)


def axial_shift(x: jax.Array, size: int, axis: int, padding: str = "zero", dilation: int = 1) -> jax.Array:
  """AS-MLP's axial shift along one axis (arXiv 2107.08391, Sec. 3.2), -> [B, H, W, C].

  Args:
    x: [B, H, W, C], any dtype.
    size: odd. Groups have ceil(C / size) channels, the last one possibly fewer, and group g moves by
      (g - size // 2) * dilation positions. If C is small, there are fewer groups than size, as in the original.
    axis: 1 shifts vertically (over H), 2 horizontally (over W).
    padding: the values from outside the map: "zero", "circular", "reflect" or "replicate" (the paper's Table 3).
    dilation: positive; multiplies every offset.

  Raises:
    ValueError: even size, unknown padding or axis, or a reflection wider than the map.
  """
  if size < 1 or size % 2 == 0:
    raise ValueError(f"shift size must be odd and positive, got {size}")
  if padding not in PADDINGS:
    raise ValueError(f"unknown padding {padding!r}; one of {', '.join(PADDINGS)}")
  if axis not in (1, 2):
    raise ValueError(f"axis must be 1 (vertical) or 2 (horizontal), got {axis}")
  if dilation < 1:
    raise ValueError(f"dilation must be positive, got {dilation}")
  groups = axial_groups(x.shape[-1], size, axis, dilation)
  for step in (step for offset, _ in groups for step in offset):
    if padding == "reflect" and abs(step) >= x.shape[axis]:
      raise ValueError(f"cannot reflect {abs(step)} positions into a map of {x.shape[axis]} along axis {axis}")
  return _shift(x, groups, padding)


def axial_groups(channels: int, size: int, axis: int, dilation: int) -> forms.Groups:
  """((dy, dx), number of channels) of each group of `axial_shift`, in the order of the channels."""
  width = math.ceil(channels / size)
  steps = [(g - size // 2) * dilation for g in range(math.ceil(channels / width))]
  offsets = [(step, 0) if axis == 1 else (0, step) for step in steps]
  return tuple((offset, min(width, channels - g * width)) for g, offset in enumerate(offsets))


def cycle_shift(x: jax.Array, axis: int) -> jax.Array:
  """The shift in CycleMLP's Cycle FC (arXiv 2107.10224, Sec. 3.2, as in its code), -> [B, H, W, C].

  Of any three successive channels, the first stays, the second has the value of the next position, and the third that
  of the position before; 0 from outside the map.

  Args:
    x: [B, H, W, C], any dtype.
    axis: 1 shifts vertically (over H), 2 horizontally (over W).

  Raises:
    ValueError: another axis.
  """
  if axis not in (1, 2):
    raise ValueError(f"axis must be 1 (vertical) or 2 (horizontal), got {axis}")
  back, forth = (UP, DOWN) if axis == 1 else (LEFT, RIGHT)
  return _shift(x, tuple((offset, (k, 3)) for k, offset in enumerate(((0, 0), back, forth))), "zero")


def _shift(x, groups, fill):
  if all(offset == (0, 0) for offset, _ in groups):
    return x
  if fill in ("reflect", "replicate"):  # only for ablations: plain autodiff
    return by_roll(x, groups, fill)
  return forms.shift(x, groups, fill, by_roll)


def by_roll(x: jax.Array, groups: forms.Groups, fill: str) -> jax.Array:
  """The definition: rolls the map for each group, and uses the group's channels where the source is inside the map.

  fill: the other values, a name in `PADDINGS` or "keep".
  """
  out = x if fill == "keep" else jnp.zeros_like(x)
  for offset, in_group in forms.group_masks(x.shape, groups):
    moved = jnp.roll(x, offset, (1, 2))
    inside = forms.inside(x.shape, offset)
    axis, step = (1, offset[0]) if offset[0] else (2, offset[1])
    if fill == "replicate":
      edge = jax.lax.index_in_dim(x, 0 if step > 0 else -1, axis)
      moved = jnp.where(inside, moved, edge)
    elif fill == "reflect":
      mirrored = jnp.roll(jnp.flip(x, axis), step + (step > 0) - (step < 0), axis)
      moved = jnp.where(inside, moved, mirrored)
    take = in_group & inside if fill in ("keep", "zero") else in_group
    out = jnp.where(take, moved, out)
  return out
