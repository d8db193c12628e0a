"""Norms. Statistics and affine maps are float32 whatever the dtype; the statistics are marked for `remat`.

Those that may end a branch take a factor of the result, such as drop path's: as a product of its own, it is a third of
the pass over the map, by the TPU compiler's estimate.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models.remat import saved


class LayerNorm(nn.Module):
  """Layer normalisation (arXiv 1607.06450) over the last axis; [..., C] -> [..., C] in `dtype`.

  The same numbers and parameters as nn.LayerNorm: the variance is E[x^2] - E[x]^2 in float32, one pass. The result is
  multiplied by factor, which broadcasts against it.
  """

  epsilon: float = 1e-6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, factor: jax.Array | float | None = None) -> jax.Array:
    scale, bias = _scale_and_bias(self, x.shape[-1])
    wide = x.astype(jnp.float32)
    mean = saved(wide.mean(-1, keepdims=True))
    square = saved(jnp.square(wide).mean(-1, keepdims=True))
    variance = jnp.maximum(0.0, square - jnp.square(mean))
    centred, gain = wide - mean, jax.lax.rsqrt(variance + self.epsilon)
    if factor is not None:
      gain, bias = gain * factor, bias * factor
    return (centred * (gain * scale) + bias).astype(self.dtype)


class GroupNorm1(nn.Module):
  """GroupNorm (arXiv 1803.08494) with one group: each sample is normalised over all positions and channels.

  Applied as one affine per (sample, channel): the same mathematics as nn.GroupNorm in one pass fewer over the map.
  x: [B, ..., C]; the result has `dtype`.

  Attributes:
    features: number of scales and of biases; C if None.
    arrange: from these to an array that broadcasts against x.
  """

  features: int | None = None
  arrange: Callable[[jax.Array], jax.Array] = lambda values: values
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale, bias = map(self.arrange, _scale_and_bias(self, self.features or x.shape[-1]))
    axes = tuple(range(1, x.ndim))
    wide = x.astype(jnp.float32)
    mean = saved(wide.mean(axes, keepdims=True))
    if x.dtype == jnp.bfloat16:  # one pass for both; what E[x^2] - E[x]^2 loses is less than x has lost by its rounding
      variance = saved(jnp.maximum(0.0, jnp.square(wide).mean(axes, keepdims=True) - jnp.square(mean)))
    else:  # the derivative with respect to this mean is zero, which XLA would find by a pass over the map
      variance = saved(jnp.square(wide - jax.lax.stop_gradient(mean)).mean(axes, keepdims=True))
    gain = scale * jax.lax.rsqrt(variance + self.epsilon)
    return (wide * gain + (bias - mean * gain)).astype(self.dtype)


class Affine(nn.Module):
  """ResMLP's Aff(x) = alpha * x + beta per channel (arXiv 2105.03404, Eq. 1), times factor; no statistics."""

  init_value: float = 1.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, factor: jax.Array | float | None = None) -> jax.Array:
    scale, bias = _scale_and_bias(self, x.shape[-1], self.init_value)
    if factor is not None:
      scale, bias = scale * factor, bias * factor
    return x.astype(self.dtype) * scale.astype(self.dtype) + bias.astype(self.dtype)


def _scale_and_bias(module, channels, init_value=1.0):
  scale = module.param("scale", nn.initializers.constant(init_value), (channels,))
  return scale, module.param("bias", nn.initializers.zeros_init(), (channels,))
