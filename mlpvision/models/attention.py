"""Multi-head self-attention, with its products in two forms: one head at a time, or all at once under a mask."""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from mlpvision.models import layers

# The TPU compiler's estimates for a block of Swin-T, v5e, 64 images, windows of 49 tokens, with the products head by
# head and under a mask: 52.86 and 36.16 M cycles for 3 heads, 17.93 and 14.84 M for 6.
_MAX_HEADS, _MAX_TOKENS = 6, 64


class Attention(nn.Module):
  """Multi-head self-attention (arXiv 1706.03762, Sec. 3.2) over the tokens; [..., N, C] -> [..., N, C].

  The layer `qkv` computes queries, keys and values; its columns are ordered (query|key|value, head, channel).
  bias: added to the scaled products before the softmax; broadcasts to [..., num_heads, N, N].
  """

  num_heads: int
  dropout: float = 0.0
  kernel_init: Any = nn.linear.default_kernel_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, bias: jax.Array | None = None) -> jax.Array:
    channels = x.shape[-1]
    if channels % self.num_heads:
      raise ValueError(f"{channels} channels cannot be divided into {self.num_heads} heads")
    dense = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    query, key, value = jnp.split(layers.Dense(3 * channels, **dense, name="qkv")(x), 3, -1)
    # The softmax is always float32: rounded weights would not sum to one. The products are in `dtype`, as all others:
    # they are the largest arrays of a block, and their rounding is not seen in the logits (docs/performance.md).
    scale = (channels // self.num_heads) ** -0.5
    scores = head_products(query * scale, key, self.num_heads).astype(jnp.float32)
    weights = nn.softmax(scores if bias is None else scores + bias).astype(self.dtype)
    out = layers.Dense(channels, **dense, name="proj")(head_sums(weights, value, self.num_heads))
    return layers.Dropout(self.dropout)(out, train)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def head_products(x: jax.Array, y: jax.Array, heads: int) -> jax.Array:
  """Products of two tokens' channels of one head: x, y [..., N, C] -> [..., heads, N, N]; [h, i, j] is x_i y_j."""
  return _lowered(
    heads,
    x,
    y,
    by_head=lambda x, y: jnp.einsum("...ihd,...jhd->...hij", _split(x, heads), _split(y, heads)),
    masked=lambda x, y: jnp.einsum("...hic,...jc->...hij", _masked(x, heads), y),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def head_sums(weights: jax.Array, x: jax.Array, heads: int) -> jax.Array:
  """Weighted sums of tokens: weights [..., heads, N, N] and x [..., N, C] -> [..., N, C].

  Head h of token i is the sum over j of weights[h, i, j] times head h of x_j.
  """
  return _lowered(
    heads,
    weights,
    x,
    by_head=lambda weights, x: jnp.einsum("...hij,...jhd->...ihd", weights, _split(x, heads)).reshape(x.shape),
    masked=lambda weights, x: (jnp.einsum("...hij,...jc->...hic", weights, x) * _mask(x, heads)).sum(-3),
  )


def _transposed_sums(weights, x, heads):
  """`head_sums` with the weights of j and i exchanged."""
  return _lowered(
    heads,
    weights,
    x,
    by_head=lambda weights, x: jnp.einsum("...hij,...ihd->...jhd", weights, _split(x, heads)).reshape(x.shape),
    masked=lambda weights, x: jnp.einsum("...hij,...hic->...jc", weights, _masked(x, heads)),
  )


head_products.defvjp(
  lambda x, y, heads: (head_products(x, y, heads), (x, y)),
  lambda heads, kept, g: (head_sums(g, kept[1], heads), _transposed_sums(g, kept[0], heads)),
)
head_sums.defvjp(
  lambda weights, x, heads: (head_sums(weights, x, heads), (weights, x)),
  lambda heads, kept, g: (head_products(g, kept[1], heads), _transposed_sums(kept[0], g, heads)),
)


def _lowered(
  heads: int, first: jax.Array, x: jax.Array, *, by_head: Callable[..., jax.Array], masked: Callable[..., jax.Array]
) -> jax.Array:
  """The form for the platform.

  A head of 32 channels fills a quarter of a TPU's lanes and of its matrix units' rows, so that splitting into heads
  copies mostly padding, and a product over all channels, of which other heads' are 0, takes no longer than one over
  those of the head. The masked form does `heads` times the multiply-adds and moves nothing.
  """
  if heads > _MAX_HEADS or x.shape[-2] > _MAX_TOKENS:
    return by_head(first, x)
  return lax.platform_dependent(first, x, tpu=masked, default=by_head)


def _split(x, heads):
  return x.reshape(*x.shape[:-1], heads, -1)


def _mask(x, heads):
  """[heads, 1, C] in x's dtype: 1 for the channels of a head."""
  width = x.shape[-1] // heads
  return (jnp.arange(x.shape[-1]) // width == jnp.arange(heads)[:, None])[:, None].astype(x.dtype)


def _masked(x, heads):
  """[..., N, C] -> [..., heads, N, C]: only the channels of one head, 0 elsewhere."""
  return x[..., None, :, :] * _mask(x, heads)
