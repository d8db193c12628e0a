"""Building blocks that more than one family uses."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp

from mlpvision.models import forms

# PyTorch's default for its linear and convolution layers, which several originals keep: uniform within
# 1 / sqrt(fan_in), the bias too.
torch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> Callable[..., jax.Array]:
  bound = fan_in**-0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Dense(nn.Dense):
  """nn.Dense, its product in the shape that the platform is fastest with; the result is marked for `remat`."""

  dot_general: Any = lambda x, kernel, *_, **__: forms.product(x, kernel)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., C_in] -> [..., features]."""
    return forms.saved(super().__call__(x))


# Which rows of the batch the model sees, while a batch is worked on part by part: rows part, part + parts, ...
_part = contextvars.ContextVar("part", default=(0, 1))


@contextlib.contextmanager
def part_of_batch(part: int | jax.Array, parts: int) -> Iterator[None]:
  """Inside, models that are traced draw for their rows what they would draw for these in the whole batch.

  The model is given rows part, part + parts, ... of a batch; part may be traced.
  """
  token = _part.set((part, parts))
  try:
    yield
  finally:
    _part.reset(token)


class Dropout(nn.Dropout):
  """nn.Dropout, drawing anew for each part of a batch."""

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Drops elements of x with probability `rate` where train is True."""
    if not train or self.rate == 0.0:
      return x
    part, _ = _part.get()
    return super().__call__(x, deterministic=False, rng=jax.random.fold_in(self.make_rng("dropout"), part))


class Mlp(nn.Module):
  """Dense, GELU, Dense over the last axis; [..., C] -> [..., C].

  approximate: the tanh form of GELU (the default of Flax, so of the original Mixer) instead of the exact one.
  bias_init: from a layer's fan-in to its initializer.
  """

  hidden_dim: int
  dropout: float = 0.0
  approximate: bool = False
  kernel_init: Any = nn.linear.default_kernel_init
  bias_init: Any = lambda fan_in: nn.initializers.zeros_init()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    dense = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    out = Dense(self.hidden_dim, bias_init=self.bias_init(x.shape[-1]), **dense)(x)
    out = nn.gelu(out, approximate=True) if self.approximate else forms.gelu(out)
    out = Dropout(self.dropout)(out, train)
    out = Dense(x.shape[-1], bias_init=self.bias_init(self.hidden_dim), **dense)(out)
    return Dropout(self.dropout)(out, train)


class Attention(nn.Module):
  """Multi-head self-attention (arXiv 1706.03762, Sec. 3.2) over the tokens; [..., N, C] -> [..., N, C].

  One layer `qkv` makes queries, keys and values, its columns ordered (query|key|value, head, channel of the head).
  bias: added to the scaled products before the softmax, broadcastable to [..., num_heads, N, N].
  """

  num_heads: int
  dropout: float = 0.0
  kernel_init: Any = nn.linear.default_kernel_init
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, bias: jax.Array | None = None) -> jax.Array:
    channels = x.shape[-1]
    if channels % self.num_heads:
      raise ValueError(f"{channels} channels cannot be cut into {self.num_heads} heads")
    dense = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    head_dim = channels // self.num_heads
    qkv = Dense(3 * channels, **dense, name="qkv")(x).reshape(*x.shape[:-1], 3, self.num_heads, head_dim)
    query, key, value = (qkv[..., i, :, :] for i in range(3))
    # Products and softmax in float32 whatever the dtype: rounded weights would not sum to one.
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key, preferred_element_type=jnp.float32) * head_dim**-0.5
    weights = nn.softmax(scores if bias is None else scores + bias).astype(self.dtype)
    out = jnp.einsum("...hqk,...khd->...qhd", weights, value).reshape(x.shape)
    out = Dense(channels, **dense, name="proj")(out)
    return Dropout(self.dropout)(out, train)


class DropPath(nn.Module):
  """Stochastic depth (arXiv 1603.09382): drops the whole branch of a sample with probability `rate`.

  rescale: divide the kept branches by 1 - rate, as timm and DeiT do; the original Mixer code does not.
  """

  rate: float
  rescale: bool = True

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    if not train or self.rate == 0.0:
      return x
    mask = self._mask(x)
    return jnp.where(mask, x / (1.0 - self.rate) if self.rescale else x, jnp.zeros_like(x))

  def factor(self, x: jax.Array, train: bool = False) -> jax.Array | float:
    """What a call multiplies x [B, ...] by, float32 [B, 1, ...]: for a norm at the end of the branch to apply."""
    if not train or self.rate == 0.0:
      return 1.0
    return jnp.where(self._mask(x), 1.0 / (1.0 - self.rate) if self.rescale else 1.0, 0.0)

  def _mask(self, x):
    part, parts = _part.get()
    mask = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, (x.shape[0], parts))[:, part]
    return mask.reshape(-1, *[1] * (x.ndim - 1))


def drop_path_rates(rate: float, num_blocks: int) -> list[float]:
  """Linear from 0 in the first block to `rate` in the last, as floats."""
  return [rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]


Outputs = jax.Array | tuple[jax.Array, ...]  # logits, or the maps of `Backbone.features`


class Backbone(nn.Module):
  """What all families share. Each has a `patch_size`, and `num_blocks` or, as a pyramid of stages, `depths`."""

  @property
  def feature_strides(self) -> tuple[int, ...]:
    """Image pixels per position, for each map of `features`."""
    stages = len(self.depths) if hasattr(self, "depths") else 1
    return tuple(self.patch_size * 2**stage for stage in range(stages))

  @property
  def size_divisor(self) -> int:
    """What both sides of an image must be multiples of."""
    return self.feature_strides[-1]

  def features(self, images: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
    """A map for each stage, ([B, H/stride, W/stride, channels], ...).

    That of a plain stack is taken after its last norm, if it has one, and without class token; those of a pyramid are
    taken before the next stage's merging.
    """
    return self(images, train=train, return_features=True)

  def check_patches(self, patches: Callable[[Any], Any], rows: int, columns: int) -> None:
    """ValueError where the given parameters are for other patches than rows x columns; patches: as in `Family`."""
    if self.is_initializing():
      return
    params = flatten_dict(self.variables["params"], sep="/")
    expected = patches({path: leaf.shape for path, leaf in params.items()})
    found = rows * columns if isinstance(expected, int) else (rows, columns)
    if found != expected:
      wanted, found = (str(n).strip("()").replace(", ", "x") for n in (expected, found))
      raise ValueError(
        f"these {type(self).__name__} parameters are for {wanted} patches of {self.patch_size}x{self.patch_size}"
        f" pixels, the images have {found}: use images of the size that they were made for, or adapt them"
        " (`mlpvision.weights.resize`)"
      )


def patch_embed(
  images: jax.Array,
  patch_size: int,
  features: int,
  *,
  kernel_init: jax.nn.initializers.Initializer = torch_kernel_init,
  bias_init: jax.nn.initializers.Initializer | None = None,
  dtype: Any = jnp.float32,
) -> jax.Array:
  """Non-overlapping patches through the layer `stem`: images [B, H, W, 3] -> [B, H/p, W/p, features].

  Call it inside a compact method. The initialisation is PyTorch's by default. ValueError where the patches do not fit.
  """
  height, width, channels = images.shape[1:]
  if height % patch_size or width % patch_size:
    raise ValueError(f"images of {height}x{width} cannot be cut into patches of {patch_size}x{patch_size}")
  init = dict(kernel_init=kernel_init, bias_init=bias_init or torch_bias_init(channels * patch_size**2))
  size = (patch_size, patch_size)
  return nn.Conv(features, size, strides=size, padding="VALID", **init, dtype=dtype, name="stem")(images)


def classify(
  x: jax.Array,
  num_classes: int | None,
  *,
  kernel_init: jax.nn.initializers.Initializer,
  bias_init: jax.nn.initializers.Initializer = nn.initializers.zeros_init(),  # noqa: B008
) -> jax.Array:
  """Pooled features [B, C] to float32 logits [B, num_classes] by the layer `head`, or as they are without classes."""
  x = x.astype(jnp.float32)
  return nn.Dense(num_classes, kernel_init=kernel_init, bias_init=bias_init, name="head")(x) if num_classes else x
