"""The parameter-free shifts of S2-MLP and AS-MLP; `shifted_product` has a faster form for a product behind one.

Both cut the channels of x [B, H, W, C] into contiguous groups and move each group as a whole over the
map. The definition is `jnp.roll` plus a mask (which channels, and which positions have a source inside
the map); `_by_roll` is that definition, word for word. XLA compiles it poorly on TPU and CPU, so there
the same values come from one `lax.pad` with a negative edge per offset plus the same mask (`_by_pad`).
Both forms only select and never compute, so they agree bit for bit, in value and in gradient.
"""

from collections.abc import Sequence
import functools
import math

import jax
from jax import lax
import jax.numpy as jnp

# A direction is (dy, dx), the way features move: (1, 0) is down, (0, 1) is right.
UP, DOWN, LEFT, RIGHT = (-1, 0), (1, 0), (0, -1), (0, 1)

# The sets of S2-MLP's Table 7 (its letter beside each). The order of "four" is that of Algorithm 1.
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
  x: jax.Array, directions: str | Sequence[tuple[int, int]] = "four", border: str = "keep"
) -> jax.Array:
  """S2-MLP's spatial shift (arXiv 2106.07477, Algorithm 1 and Eq. 3).

  Args:
    x: [B, H, W, C], any dtype; C divisible by the number of directions.
    directions: a name in `DIRECTIONS`, or a sequence of (dy, dx), one per equal channel group.
    border: what a position gets whose source lies outside the map. "keep": its own value, as Algorithm 1
      does (it overwrites the interior only). "zero": 0, as the paper's depthwise-convolution reading implies.

  Returns:
    [B, H, W, C]: at (y, x) a group of direction (dy, dx) has the value of (y - dy, x - dx).

  Raises:
    ValueError: unknown name, or C not divisible by the number of directions.
  """
  if border not in BORDERS:
    raise ValueError(f"unknown border {border!r}; one of {', '.join(BORDERS)}")
  offsets = resolve_directions(directions)
  if x.shape[-1] % len(offsets):
    raise ValueError(
      f"{x.shape[-1]} channels cannot be cut into {len(offsets)} equal groups (directions={directions!r})"
    )
  width = x.shape[-1] // len(offsets)
  return _shift(x, tuple((offset, width) for offset in offsets), border)


def resolve_directions(directions: str | Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
  """A tuple of (dy, dx) for a name in `DIRECTIONS` or for a sequence of integer pairs."""
  if isinstance(directions, str):
    if directions not in DIRECTIONS:
      raise ValueError(f"unknown directions {directions!r}; one of {', '.join(DIRECTIONS)}, or (dy, dx) pairs")
    return DIRECTIONS[directions]
  return tuple((int(dy), int(dx)) for dy, dx in directions)


def axial_shift(x: jax.Array, size: int, axis: int, padding: str = "zero", dilation: int = 1) -> jax.Array:
  """AS-MLP's axial shift along one axis (arXiv 2107.08391, Sec. 3.2; official code: zero padding, dilation 1).

  Args:
    x: [B, H, W, C], any dtype.
    size: odd; the channels are cut into groups of ceil(C / size), the last one possibly smaller, and group g
      moves by (g - size // 2) * dilation positions. Small C gives fewer groups than size, as in the original.
    axis: 1 shifts vertically (over H), 2 horizontally (over W).
    padding: what comes in from outside: "zero", "circular", "reflect" or "replicate" (the paper's Table 3).
    dilation: positive; the factor on every offset.

  Returns:
    [B, H, W, C].

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


def axial_groups(channels: int, size: int, axis: int, dilation: int) -> tuple[tuple[tuple[int, int], int], ...]:
  """((dy, dx), number of channels) of each group of `axial_shift`, in the order of the channels."""
  width = math.ceil(channels / size)
  steps = [(g - size // 2) * dilation for g in range(math.ceil(channels / width))]
  return tuple(
    ((step, 0) if axis == 1 else (0, step), min(width, channels - g * width)) for g, step in enumerate(steps)
  )


def _shift(x, groups, fill):
  """Moves each channel group; groups: (((dy, dx), number of channels), ...)."""
  if all(offset == (0, 0) for offset, _ in groups):
    return x
  if fill in ("reflect", "replicate"):  # ablations only: plain autodiff of the definition
    return _by_roll(x, groups, fill)
  return _shift_with_vjp(x, groups, fill)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _shift_with_vjp(x, groups, fill):
  return _lowered(x, groups, fill)


def _shift_fwd(x, groups, fill):
  return _lowered(x, groups, fill), None


def _shift_bwd(groups, fill, _, g):
  """The adjoint of a shift is the shift by the opposite offset; a kept border adds its own gradient."""
  back = tuple(((-dy, -dx), width) for (dy, dx), width in groups)
  if fill != "keep":
    return (_lowered(g, back, fill),)
  return (_lowered(g, back, "zero") + jnp.where(_has_source(g.shape, groups), jnp.zeros_like(g), g),)


_shift_with_vjp.defvjp(_shift_fwd, _shift_bwd)


def _lowered(x, groups, fill):
  pad = functools.partial(_by_pad, groups=groups, fill=fill)
  roll = functools.partial(_by_roll, groups=groups, fill=fill)
  return lax.platform_dependent(x, tpu=pad, cpu=pad, default=roll)


def _by_roll(x, groups, fill):
  """The definition: roll the whole map, keep the group's channels where the source is inside the map."""
  out = x if fill == "keep" else jnp.zeros_like(x)
  for offset, in_group in _group_masks(x.shape, groups):
    moved = jnp.roll(x, offset, (1, 2))
    inside = _inside(x.shape, offset)
    if fill == "replicate":
      edge = _edge(x, offset)
      moved = jnp.where(inside, moved, edge)
    elif fill == "reflect":
      axis, step = (1, offset[0]) if offset[0] else (2, offset[1])
      mirrored = jnp.roll(jnp.flip(x, axis), step + (step > 0) - (step < 0), axis)
      moved = jnp.where(inside, moved, mirrored)
    take = in_group & inside if fill in ("keep", "zero") else in_group
    out = jnp.where(take, moved, out)
  return out


def _by_pad(x, groups, fill):
  """The same values with one pad per offset: positive on one edge, negative on the other."""
  out = None
  for (dy, dx), in_group in _group_masks(x.shape, groups):
    if fill == "circular":
      moved = jnp.roll(x, (dy, dx), (1, 2))
    else:
      moved = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (dy, -dy, 0), (dx, -dx, 0), (0, 0, 0)))
    out = moved if out is None else jnp.where(in_group, moved, out)
  if fill == "keep":
    out = jnp.where(_has_source(x.shape, groups), out, x)
  return out


def _edge(x, offset):
  (dy, dx) = offset
  if dy:
    return x[:, :1] if dy > 0 else x[:, -1:]
  return x[:, :, :1] if dx > 0 else x[:, :, -1:]


def _group_masks(shape, groups):
  """[((dy, dx), bool[1, 1, 1, C]), ...]: which channels belong to each group."""
  channel = lax.broadcasted_iota(jnp.int32, (1, 1, 1, shape[-1]), 3)
  masks, start = [], 0
  for offset, width in groups:
    masks.append((offset, (channel >= start) & (channel < start + width)))
    start += width
  return masks


def _inside(shape, offset):
  """bool[1, H, W, 1]: whether position (y - dy, x - dx) lies inside the map."""
  (dy, dx), (_, height, width, _) = offset, shape
  y = lax.broadcasted_iota(jnp.int32, (1, height, width, 1), 1) - dy
  x = lax.broadcasted_iota(jnp.int32, (1, height, width, 1), 2) - dx
  return (y >= 0) & (y < height) & (x >= 0) & (x < width)


def _has_source(shape, groups):
  """bool[1, H, W, C]: whether each channel's source lies inside the map."""
  masks = [in_group & _inside(shape, offset) for offset, in_group in _group_masks(shape, groups)]
  return functools.reduce(jnp.logical_or, masks)
