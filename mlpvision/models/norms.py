"""Norms. Statistics and affine maps are float32 whatever the dtype; `forms` has how they are computed."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import forms


class LayerNorm(nn.Module):
  """Layer normalisation (arXiv 1607.06450) over the last axis; [..., C] -> [..., C] in `dtype`.

  The same numbers and parameters as nn.LayerNorm. The result is multiplied by factor, which broadcasts against it.
  """

  epsilon: float = 1e-6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, factor: jax.Array | float | None = None) -> jax.Array:
    scale, bias = _scale_and_bias(self, x.shape[-1])
    return forms.layer_norm(x, scale, bias, self.epsilon, self.dtype, factor)


class GroupNorm1(nn.Module):
  """GroupNorm (arXiv 1803.08494) with one group: each sample is normalised over all positions and channels.

  The same numbers and parameters as nn.GroupNorm. x: [B, ..., C]; the result has `dtype`.

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
    return forms.group_norm(x, scale, bias, self.epsilon, self.dtype)


class Affine(nn.Module):
  """ResMLP's Aff(x) = alpha * x + beta per channel (arXiv 2105.03404, Eq. 1), times factor; no statistics."""

  init_value: float = 1.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, factor: jax.Array | float | None = None) -> jax.Array:
    scale, bias = _scale_and_bias(self, x.shape[-1], self.init_value)
    return forms.affine(x, scale, bias, self.dtype, factor)


def _scale_and_bias(module, channels, init_value=1.0):
  scale = module.param("scale", nn.initializers.constant(init_value), (channels,))
  return scale, module.param("bias", nn.initializers.zeros_init(), (channels,))
