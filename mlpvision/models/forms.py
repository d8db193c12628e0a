"""Operations in forms that compile to faster code. Each docstring has the plain definition and the reason for the form.

You do not need this file to understand a network. Values and gradients are those of the definitions, up to the order of
additions; `tests/models/test_forms.py` and `test_shift.py` compare them. One more form is in `shifted_product`.

Under `jax.jit`, a function is traced once for all blocks that call it with the same shapes; XLA inlines it.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from mlpvision.models import remat

# Activations


@jax.custom_vjp
@jax.jit
def gelu(x: jax.Array) -> jax.Array:
  """x * Phi(x), the exact GELU: jax.nn.gelu(x, approximate=False).

  XLA compiles erf to faster code than jax.nn.gelu's erfc. The gradient keeps only x; JAX's derivative would also keep
  erf(x) and its factors, each as large as x.
  """
  return x * _normal_cdf(x)


def _normal_cdf(x):
  return 0.5 * (1.0 + lax.erf(x * (0.5**0.5)))


@jax.jit
def _gelu_backward(x, g):
  density = jnp.exp(-0.5 * x * x) * (2.0 * jnp.pi) ** -0.5
  return (g * (_normal_cdf(x) + x * density),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


# Products


@jax.custom_vjp
@jax.jit
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x @ kernel, of x [..., C] and kernel [C, F].

  On CPU, x is reshaped to [tokens, C], which is faster there. On TPU it keeps its shape: XLA's layout of a map is
  [H, W, B, C], so a reshape would copy it.
  """
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: (_tokens(x) @ kernel).reshape(*x.shape[:-1], -1),
    default=lambda x, kernel: jnp.tensordot(x, kernel, 1),
  )


@jax.jit
def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
  """The kernel's gradient [C, F] of `product(x, kernel)`, from x [..., C] and the result's gradient g [..., F]."""
  leading = tuple(range(x.ndim - 1))
  return lax.platform_dependent(
    x,
    g,
    cpu=lambda x, g: _tokens(x).T @ _tokens(g),
    default=lambda x, g: jnp.tensordot(x, g, (leading, leading)),
  )


def _product_backward(operands, g):
  x, kernel = operands
  return product(g, kernel.T), kernel_gradient(x, g)


def _tokens(x):
  return x.reshape(-1, x.shape[-1])


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _product_backward)


# Norms. Statistics and affine maps are always float32.


@functools.partial(jax.jit, static_argnames=("epsilon", "dtype"))
def layer_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype: Any, factor: jax.Array | float | None = None
) -> jax.Array:
  """factor * ((x - E[x]) / sqrt(Var[x] + epsilon) * scale + bias), E and Var over the last axis; in `dtype`.

  The variance is E[x^2] - E[x]^2, so that one pass computes both, as in nn.LayerNorm. factor, such as drop path's,
  broadcasts against x. It is applied to scale and bias: by the TPU compiler's estimate, a separate product would take a
  third of the time of the pass over the map.
  """
  wide = x.astype(jnp.float32)
  # The square first: the gradient's terms are then added in an order that leaves XLA on CPU nothing to recompute. With
  # the mean first, the backward pass of Mixer-B/16 takes 1.4 times as long unless the barrier of `remat` is kept.
  square = remat.saved(jnp.square(wide).mean(-1, keepdims=True))
  mean = remat.saved(wide.mean(-1, keepdims=True))
  variance = jnp.maximum(0.0, square - jnp.square(mean))
  centered, gain = wide - mean, lax.rsqrt(variance + epsilon)
  if factor is not None:
    gain, bias = gain * factor, bias * factor
  return (centered * (gain * scale) + bias).astype(dtype)


def group_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype: Any, mask: jax.Array | None = None
) -> jax.Array:
  """(x - E[x]) / sqrt(Var[x] + epsilon) * scale + bias, E and Var over all axes but the first; in `dtype`.

  mask: bool [B, ...] that broadcasts against x; E and Var are over the values where it is True.

  Applied as one affine map per example and channel, x * gain + (bias - E[x] * gain), to save a pass over the map.
  """
  mean_of = functools.partial(_mean_of_example, mask=mask)
  wide = x.astype(jnp.float32)
  # As in `layer_norm`, the mean that the gradient knows comes last.
  if x.dtype == jnp.bfloat16:  # one pass for both; E[x^2] - E[x]^2 loses less precision than rounding x has lost
    square = mean_of(jnp.square(wide))
    mean = remat.saved(mean_of(wide))
    variance = remat.saved(jnp.maximum(0.0, square - jnp.square(mean)))
  else:  # the derivative with respect to this first mean is zero; XLA would compute it with a pass over the map
    variance = remat.saved(mean_of(jnp.square(wide - lax.stop_gradient(mean_of(wide)))))
    mean = remat.saved(mean_of(wide))
  gain = scale * lax.rsqrt(variance + epsilon)
  return (wide * gain + (bias - mean * gain)).astype(dtype)


def _mean_of_example(x, mask):
  """[B, ...] -> [B, 1, ...]; 0 for an example whose mask is False everywhere."""
  axes = tuple(range(1, x.ndim))
  if mask is None:
    return x.mean(axes, keepdims=True)
  count = mask.sum(axes, keepdims=True) * (x.size // mask.size)
  return jnp.where(mask, x, 0.0).sum(axes, keepdims=True) / jnp.maximum(count, 1)


def affine(
  x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: Any, factor: jax.Array | float | None = None
) -> jax.Array:
  """factor * (x * scale + bias), in `dtype`, without a gradient for the factor.

  The factor is applied as in `layer_norm`, but last on CPU. The gradient applies it first. JAX's derivative would first
  sum up the gradients of scale and bias per example, which XLA on CPU takes long to compile.
  """
  if factor is None:
    return x.astype(dtype) * scale.astype(dtype) + bias.astype(dtype)
  return _factor_affine(x, scale, bias, factor, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
@functools.partial(jax.jit, static_argnums=4)
def _factor_affine(x, scale, bias, factor, dtype):
  def last(x, scale, bias, factor):
    return ((x * scale + bias) * factor).astype(dtype)

  def first(x, scale, bias, factor):
    return x.astype(dtype) * (scale * factor).astype(dtype) + (bias * factor).astype(dtype)

  return lax.platform_dependent(x, scale, bias, factor, cpu=last, default=first)


@functools.partial(jax.jit, static_argnums=0)
def _affine_backward(dtype, operands, g):
  x, scale, factor = operands
  g, axes = g * factor, tuple(range(x.ndim - 1))
  return (g * scale).astype(x.dtype), (g * x).sum(axes), g.sum(axes), None


_factor_affine.defvjp(
  lambda x, scale, bias, factor, dtype: (_factor_affine(x, scale, bias, factor, dtype), (x, scale, factor)),
  _affine_backward,
)


# Shifts

# (((dy, dx), channels), ...): the offset of each group of channels. `channels` is the number of the channels that
# follow those of the group before, or (k, n) for the channels k, k + n, k + 2n, ...
Groups = tuple[tuple[tuple[int, int], int | tuple[int, int]], ...]

# The platforms on which `shift` is a pad. For cuda by a compiler's counts alone: nothing was timed there.
BY_PAD = ("cpu", "tpu", "cuda")


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def shift(x: jax.Array, groups: Groups, fill: str, definition: Callable[..., jax.Array]) -> jax.Array:
  """Bit-identical to `definition(x, groups, fill)`, `models.shift.by_roll`. The gradient is the opposite shift.

  XLA compiles rolls to slow code on TPU and CPU, and moves more bytes for them on GPU. There, each offset is one
  `lax.pad` with a negative edge, under the same masks.
  """
  return _lowered(x, groups, fill, definition)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _shift_bwd(groups, fill, definition, _, g):
  # The adjoint of a shift is the shift by the opposite offset; a kept border adds its gradient.
  back = tuple(((-dy, -dx), width) for (dy, dx), width in groups)
  moved = _lowered(g, back, "zero" if fill == "keep" else fill, definition)
  return (moved + jnp.where(has_source(g.shape, groups), jnp.zeros_like(g), g) if fill == "keep" else moved,)


shift.defvjp(lambda *arguments: (_lowered(*arguments), None), _shift_bwd)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _lowered(x, groups, fill, definition):
  roll = functools.partial(definition, groups=groups, fill=fill)
  pad = functools.partial(by_pad, groups=groups, fill=fill)
  return lax.platform_dependent(x, **dict.fromkeys(BY_PAD, pad), default=roll)


def by_pad(x: jax.Array, groups: Groups, fill: str) -> jax.Array:
  """`shift` on the platforms in `BY_PAD`; fill: "keep", "zero" or "circular"."""
  out = None
  for (dy, dx), in_group in group_masks(x.shape, groups):
    if fill == "circular":
      moved = jnp.roll(x, (dy, dx), (1, 2))
    else:
      moved = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (dy, -dy, 0), (dx, -dx, 0), (0, 0, 0)))
    out = moved if out is None else jnp.where(in_group, moved, out)
  if fill == "keep":
    out = jnp.where(has_source(x.shape, groups), out, x)
  return out


def group_masks(shape: tuple[int, ...], groups: Groups) -> list[tuple[tuple[int, int], jax.Array]]:
  """[((dy, dx), bool [1, 1, 1, C]), ...]: the channels of each group, for a map of this shape."""
  channel = lax.broadcasted_iota(jnp.int32, (1, 1, 1, shape[-1]), 3)
  masks, start = [], 0
  for offset, channels in groups:
    if isinstance(channels, tuple):
      first, period = channels
      masks.append((offset, channel % period == first))
    else:
      masks.append((offset, (channel >= start) & (channel < start + channels)))
      start += channels
  return masks


def inside(shape: tuple[int, ...], offset: tuple[int, int], cells: jax.Array | None = None) -> jax.Array:
  """bool [1, H, W, 1]: whether position (y - dy, x - dx) is inside the map.

  cells: int [B, 2], rows and columns of each example that count as inside; the result is then [B, H, W, 1].
  """
  (dy, dx), (_, height, width, _) = offset, shape
  y = lax.broadcasted_iota(jnp.int32, (1, height, width, 1), 1) - dy
  x = lax.broadcasted_iota(jnp.int32, (1, height, width, 1), 2) - dx
  if cells is not None:
    height, width = (cells[:, axis, None, None, None] for axis in (0, 1))
  return (y >= 0) & (y < height) & (x >= 0) & (x < width)


def has_source(shape: tuple[int, ...], groups: Groups, cells: jax.Array | None = None) -> jax.Array:
  """bool [1, H, W, C], or [B, H, W, C] with `cells`: whether each channel's source is inside the map, see `inside`."""
  masks = [in_group & inside(shape, offset, cells) for offset, in_group in group_masks(shape, groups)]
  return functools.reduce(jnp.logical_or, masks)
