"""Operations in the form that a compiler does best with; their docstrings have the plain definition, and the reason.

Nothing here is needed to understand a network. The values are those of the definition, to the order in which numbers
are added up; `tests/models/test_forms.py` and `test_shift.py` compare them, gradients included. One more form is in
`shifted_product`.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

SAVED = "saved"

# (((dy, dx), number of channels), ...): how far each group of channels moves, in the order of the channels.
Groups = tuple[tuple[tuple[int, int], int], ...]


def saved(x: jax.Array) -> jax.Array:
  """x, of any shape; remat's policy "preactivations" keeps it for the backward pass.

  For results of matrix products and for a norm's statistics.
  """
  return checkpoint_name(x, SAVED)


# A residual stream


@jax.custom_vjp
def stored_gradient(x: jax.Array) -> jax.Array:
  """x; on CPU its gradient is stored, however cheap it looks.

  The gradient of a residual stream is a sum with a term from every block behind. XLA on CPU takes that for cheap: each
  block's kernels would compute the whole sum once more, so the backward pass would grow with the square of the depth.
  The barrier holds where a program is compiled with `models.compiler_options`; otherwise XLA drops it.
  """
  return x


def _stored(_, g):
  return (lax.platform_dependent(g, cpu=lax.optimization_barrier, default=lambda g: g),)


stored_gradient.defvjp(lambda x: (x, None), _stored)


# Activations


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
  """x * Phi(x), the exact GELU: jax.nn.gelu(x, approximate=False).

  Written with erf, which XLA compiles better than jax.nn.gelu's erfc. The gradient needs x alone: a derivative by JAX
  would keep erf(x) and its factors, each as large as x.
  """
  return x * _normal_cdf(x)


def _normal_cdf(x):
  return 0.5 * (1.0 + lax.erf(x * (0.5**0.5)))


def _gelu_backward(x, g):
  density = jnp.exp(-0.5 * x * x) * (2.0 * jnp.pi) ** -0.5
  return (g * (_normal_cdf(x) + x * density),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


# Products


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x @ kernel, of x [..., C] and kernel [C, F].

  On CPU as one product of [tokens, C], which XLA compiles to a faster one there. On TPU in the shape that x has: XLA
  lays a map out as [H, W, B, C], and a view by tokens would copy it.
  """
  return lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: (_tokens(x) @ kernel).reshape(*x.shape[:-1], -1),
    default=lambda x, kernel: jnp.tensordot(x, kernel, 1),
  )


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
  """[C, F], the gradient of `product(x, kernel)` with respect to the kernel; x [..., C], g [..., F] the result's."""
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


# Norms. Statistics and affine maps are float32 whatever the dtype; the statistics are marked for remat.


def layer_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype: Any, factor: jax.Array | float | None = None
) -> jax.Array:
  """factor * ((x - E[x]) / sqrt(Var[x] + epsilon) * scale + bias), E and Var over the last axis; in `dtype`.

  The variance is E[x^2] - E[x]^2: one pass for both, as in nn.LayerNorm. factor broadcasts against x, such as drop
  path's. It goes into scale and bias: as a product of its own, it is a third of the pass over the map, by the TPU
  compiler's estimate.
  """
  wide = x.astype(jnp.float32)
  # nn.LayerNorm takes the square before the mean. The terms of the gradient are then added up in another order, so its
  # last digits differ, and XLA on CPU repeats none of its work even without the barrier of `stored_gradient`.
  mean = saved(wide.mean(-1, keepdims=True))
  square = saved(jnp.square(wide).mean(-1, keepdims=True))
  variance = jnp.maximum(0.0, square - jnp.square(mean))
  centred, gain = wide - mean, lax.rsqrt(variance + epsilon)
  if factor is not None:
    gain, bias = gain * factor, bias * factor
  return (centred * (gain * scale) + bias).astype(dtype)


def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype: Any) -> jax.Array:
  """(x - E[x]) / sqrt(Var[x] + epsilon) * scale + bias, E and Var over all axes but the first; in `dtype`.

  Applied as one affine map for each sample and channel, x * gain + (bias - E[x] * gain): one pass fewer over the map.
  """
  axes = tuple(range(1, x.ndim))
  wide = x.astype(jnp.float32)
  mean = saved(wide.mean(axes, keepdims=True))
  if x.dtype == jnp.bfloat16:  # one pass for both; what E[x^2] - E[x]^2 loses is less than x has lost by its rounding
    variance = saved(jnp.maximum(0.0, jnp.square(wide).mean(axes, keepdims=True) - jnp.square(mean)))
  else:  # the derivative with respect to this mean is zero, which XLA would find by a pass over the map
    variance = saved(jnp.square(wide - lax.stop_gradient(mean)).mean(axes, keepdims=True))
  gain = scale * lax.rsqrt(variance + epsilon)
  return (wide * gain + (bias - mean * gain)).astype(dtype)


def affine(
  x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: Any, factor: jax.Array | float | None = None
) -> jax.Array:
  """factor * (x * scale + bias), in `dtype`; the factor as in `layer_norm`."""
  if factor is not None:
    scale, bias = scale * factor, bias * factor
  return x.astype(dtype) * scale.astype(dtype) + bias.astype(dtype)


# Shifts


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def shift(x: jax.Array, groups: Groups, fill: str, definition: Callable[..., jax.Array]) -> jax.Array:
  """`definition(x, groups, fill)`, which is `models.shift.by_roll`, bit for bit; its gradient is the opposite shift.

  XLA compiles rolls poorly on TPU and CPU, so there each offset is one `lax.pad` with a negative edge, under the same
  masks. Both only select and never compute.
  """
  return _lowered(x, groups, fill, definition)


def _shift_fwd(x, groups, fill, definition):
  return _lowered(x, groups, fill, definition), None


def _shift_bwd(groups, fill, definition, _, g):
  """The adjoint of a shift is the shift by the opposite offset; a kept border adds its own gradient."""
  back = tuple(((-dy, -dx), width) for (dy, dx), width in groups)
  moved = _lowered(g, back, "zero" if fill == "keep" else fill, definition)
  return (moved + jnp.where(has_source(g.shape, groups), jnp.zeros_like(g), g) if fill == "keep" else moved,)


shift.defvjp(_shift_fwd, _shift_bwd)


def _lowered(x, groups, fill, definition):
  pad = functools.partial(by_pad, groups=groups, fill=fill)
  return lax.platform_dependent(x, tpu=pad, cpu=pad, default=functools.partial(definition, groups=groups, fill=fill))


def by_pad(x: jax.Array, groups: Groups, fill: str) -> jax.Array:
  """What `shift` is on TPU and CPU; fill: "keep", "zero" or "circular"."""
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
  """[((dy, dx), bool [1, 1, 1, C]), ...]: which channels of a map of this shape belong to each group."""
  channel = lax.broadcasted_iota(jnp.int32, (1, 1, 1, shape[-1]), 3)
  masks, start = [], 0
  for offset, width in groups:
    masks.append((offset, (channel >= start) & (channel < start + width)))
    start += width
  return masks


def inside(shape: tuple[int, ...], offset: tuple[int, int]) -> jax.Array:
  """bool [1, H, W, 1]: whether position (y - dy, x - dx) is inside the map."""
  (dy, dx), (_, height, width, _) = offset, shape
  y = lax.broadcasted_iota(jnp.int32, (1, height, width, 1), 1) - dy
  x = lax.broadcasted_iota(jnp.int32, (1, height, width, 1), 2) - dx
  return (y >= 0) & (y < height) & (x >= 0) & (x < width)


def has_source(shape: tuple[int, ...], groups: Groups) -> jax.Array:
  """bool [1, H, W, C]: whether each channel's source is inside the map."""
  masks = [in_group & inside(shape, offset) for offset, in_group in group_masks(shape, groups)]
  return functools.reduce(jnp.logical_or, masks)
