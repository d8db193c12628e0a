"""Batch normalization with running statistics in the collection "batch_stats"."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
  """Batch normalization (arXiv 1502.03167) as in PyTorch; [..., C] -> [..., C] in `dtype`.

  In training, the statistics are the batch's; within jit, this is the global batch, on any mesh (SyncBatchNorm). The
  running mean and the running variance, which is unbiased, move by `momentum` towards them. Statistics are float32.

  momentum: PyTorch's; Flax's is 1 - momentum.
  """

  momentum: float = 0.1
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
    """mask: bool, broadcasts against x without its channels; the statistics leave out positions where it is False."""
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,))
    bias = self.param("bias", nn.initializers.zeros, (channels,))
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
    running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
    if not train:
      return self._normalized(x, running_mean.value, running_var.value, scale, bias)
    axes, wide = tuple(range(x.ndim - 1)), x.astype(jnp.float32)
    where = None if mask is None else jnp.broadcast_to(mask, x.shape[:-1])[..., None]
    count = jnp.float32(x.size // channels) if mask is None else where.sum(dtype=jnp.float32)
    mean = jnp.where(count > 0, wide.mean(axes, where=where), 0.0)
    squares = jnp.square(wide - jax.lax.stop_gradient(mean))  # the derivative with respect to this mean is zero
    variance = jnp.where(count > 0, squares.mean(axes, where=where), 1.0)
    if self.is_mutable_collection("batch_stats") and not self.is_initializing():
      unbiased = variance * count / jnp.maximum(count - 1, 1)
      for running, value in ((running_mean, mean), (running_var, unbiased)):
        running.value += self.momentum * (jax.lax.stop_gradient(value) - running.value)
    return self._normalized(x, mean, variance, scale, bias)

  def _normalized(self, x, mean, variance, scale, bias):
    gain = scale * jax.lax.rsqrt(variance + self.epsilon)
    return (x.astype(jnp.float32) * gain + (bias - mean * gain)).astype(self.dtype)
