"""Maps whose rows hold several pixels side by side in the channels, for narrow maps on TPU.

TPU registers have 128 lanes, along the channels: of 96 channels, every pass wastes a quarter. [B, H, W, C] is therefore
[B, H, W/p, p*C] in a block, with p pixels that fill the lanes, here called packed. The same memory in row-major order.
Products have p copies of their kernel on the diagonal, p times the multiply-adds, which the matrix units have time for.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import math

import jax
from jax import lax
import jax.numpy as jnp

from mlpvision.models import forms, shift

_LANES = 128
# The TPU compiler's estimates for one block of AS-MLP, v5e, 64 images, on packed maps and on maps: 12.61 and 16.35 M
# cycles for 96 channels, 5.74 and 5.68 M for 192. Packing and unpacking a map of a stage takes 3.2 M for 96 channels.
_MAX_CHANNELS = 96
_MAX_PIXELS = 4


_platform = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
  """What is traced in this context is compiled for this platform, which need not be attached."""
  token = _platform.set(platform)
  try:
    yield
  finally:
    _platform.reset(token)


def on_tpu() -> bool:
  """Whether what is traced is for TPUs.

  Single operations choose their form by `lax.platform_dependent`, which needs no context; around a whole block, every
  block would be traced twice.
  """
  return (_platform.get() or jax.default_backend()) == "tpu"


def pixels(width: int, channels: int) -> int:
  """The pixels side by side that fill whole registers; 1 where packing does not pay, or not for a map of this width."""
  found = _LANES // math.gcd(_LANES, channels)
  return found if channels <= _MAX_CHANNELS and found <= _MAX_PIXELS and width % found == 0 else 1


def pack(x: jax.Array, count: int) -> jax.Array:
  """[B, H, W, C] -> [B, H, W/count, count*C]."""
  batch, height, width, channels = x.shape
  return x.reshape(batch, height, width // count, count * channels)


def unpack(x: jax.Array, count: int) -> jax.Array:
  """[B, H, W/count, count*C] -> [B, H, W, C]."""
  batch, height, width, channels = x.shape
  return x.reshape(batch, height, width * count, channels // count)


def pack_mask(mask: jax.Array | None, count: int, channels: int) -> jax.Array | None:
  """bool [B, H, W, 1] -> [B, H, W/count, count*channels]; None for None."""
  return None if mask is None else jnp.repeat(pack(mask, count), channels, -1)


def product(x: jax.Array, kernel: jax.Array, count: int) -> jax.Array:
  """Each pixel of a packed x [..., count*C] times kernel [C, F]: [..., count*F]."""
  return forms.product(x, _on_diagonal(kernel, jnp.eye(count, dtype=kernel.dtype)))


def shifted_product(x: jax.Array, kernel: jax.Array, count: int, size: int, axis: int, dilation: int = 1) -> jax.Array:
  """`shift.axial_shift(x, size, axis, dilation=dilation) @ kernel` of a packed x, as one convolution.

  Args:
    x: [B, H, W/count, count*C].
    kernel: [C, F], x's dtype.
    count: pixels side by side.
    size, axis, dilation: of the shift; the axis is that of the map, 1 or 2.

  Returns:
    [B, H, W/count, count*F].
  """
  (_, width), *_ = shift.axial_groups(kernel.shape[0], size, axis, dilation)
  # Channel i of a pixel comes from the pixel at -offset[i].
  offset = (jnp.arange(kernel.shape[0]) // width - size // 2) * dilation
  reach = size // 2 * dilation
  if axis == 1:
    taps = jnp.arange(-reach, reach + 1)
    comes = (taps[:, None] == -offset)[:, None, :, None] & jnp.eye(count, dtype=bool)[:, None, :]
  else:
    reach = -(-reach // count)
    taps, own = jnp.arange(-reach, reach + 1), jnp.arange(count)
    comes = count * taps[:, None, None, None] + own[:, None, None] == own - offset[:, None]
  # [tap, pixel that is read, its channel, pixel] -> [tap, count*C, count*F]
  taps = jnp.einsum("tqip,if->tqipf", comes.astype(kernel.dtype), kernel)
  taps = taps.reshape(len(comes), count * kernel.shape[0], count * kernel.shape[1])
  return lax.conv_general_dilated(
    x,
    jnp.expand_dims(taps, 2 - axis),
    window_strides=(1, 1),
    padding=[(reach, reach), (0, 0)] if axis == 1 else [(0, 0), (reach, reach)],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _on_diagonal(kernel, eye):
  count, (channels, features) = len(eye), kernel.shape
  return jnp.einsum("pq,if->piqf", eye, kernel).reshape(count * channels, count * features)
