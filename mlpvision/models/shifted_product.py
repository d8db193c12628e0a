"""An axial shift and the matrix product after it; on TPU, one convolution if the compiler estimates that it is faster.

Shifting a group of channels by d positions and multiplying it by its rows of a kernel is a convolution along the axis:
the tap for d contains these rows, and zeros elsewhere. The convolution needs `size` times the multiply-adds, but they
run on the matrix units. The vector units, the bottleneck of narrow maps, no longer read the map once per group.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from mlpvision.models import forms, shift

# The TPU compiler's estimates for one block of AS-MLP, v5e, with and without the convolution. 64 images: 16.35 and
# 19.11 M cycles for 96 channels, 3.98 and 4.27 M for 512, 2.01 and 1.83 M for 768. Maps of 50 x 84 with 384 channels:
# 8.78 and 9.34 M for eight images, but 6.18 and 2.63 M for two, 1.98 and 1.21 M for one.
_MAX_CHANNELS = 512


def shifted_product(
  x: jax.Array,
  kernel: jax.Array,
  size: int,
  axis: int,
  padding: str = "zero",
  dilation: int = 1,
  *,
  few_images: bool = False,
) -> jax.Array:
  """`shift.axial_shift(x, size, axis, padding, dilation) @ kernel`, in the fastest form for the platform.

  The forms add the same products, possibly in another order.

  Args:
    x: [B, H, W, C].
    kernel: [C, F], x's dtype.
    size, axis, padding, dilation: of the shift, which raises ValueError for invalid ones.
    few_images: whether a chip has fewer than eight images, so that there is no convolution.

  Returns:
    [B, H, W, F].
  """
  if padding != "zero" or size == 1 or x.shape[-1] > _MAX_CHANNELS or few_images:
    return forms.product(shift.axial_shift(x, size, axis, padding, dilation), kernel)
  return _product(x, kernel, size, axis, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(x, kernel, size, axis, dilation):
  return _forward(x, kernel, size, axis, dilation)[0]


def _forward(x, kernel, size, axis, dilation):
  shifted = shift.axial_shift(x, size, axis, dilation=dilation)
  value = lax.platform_dependent(
    x,
    shifted,
    kernel,
    tpu=lambda x, _, kernel: _convolution(x, kernel, size, axis, dilation),
    default=lambda _, shifted, kernel: forms.product(shifted, kernel),
  )
  # XLA on TPU never stores `shifted`: it is fused into the product that reads it, the kernel's gradient.
  return value, (shifted, kernel)


def _backward(size, axis, dilation, operands, g):
  shifted, kernel = operands
  gradient = lax.platform_dependent(
    g,
    kernel,
    tpu=lambda g, kernel: _pull_back(lambda x: _convolution(x, kernel, size, axis, dilation), shifted, g),
    default=lambda g, kernel: _pull_back(
      lambda x: shift.axial_shift(x, size, axis, dilation=dilation), shifted, forms.product(g, kernel.T)
    ),
  )
  return gradient, forms.kernel_gradient(shifted, g)


_product.defvjp(_forward, _backward)


def _pull_back(linear, like, g):
  return jax.vjp(linear, jnp.zeros_like(like))[1](g)[0]


def _convolution(x, kernel, size, axis, dilation):
  (_, width), *_ = shift.axial_groups(x.shape[-1], size, axis, dilation)
  group = jnp.arange(x.shape[-1]) // width
  # Tap t reads the value at +(t - size // 2) * dilation positions; group g needs -(g - size // 2) * dilation.
  own = jnp.arange(size)[:, None] + group == size - 1
  taps = jnp.where(own[..., None], kernel, jnp.zeros_like(kernel))
  reach = size // 2 * dilation
  return lax.conv_general_dilated(
    x,
    jnp.expand_dims(taps, 2 - axis),
    window_strides=(1, 1),
    padding=[(reach, reach), (0, 0)] if axis == 1 else [(0, 0), (reach, reach)],
    rhs_dilation=(dilation, dilation),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
