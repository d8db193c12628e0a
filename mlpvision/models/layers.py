"""Building blocks that more than one family uses."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import forms, remat

# PyTorch's default for linear and convolution layers, kernels and biases: uniform within +-1 / sqrt(fan_in).
torch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_ZEROS = nn.initializers.zeros_init()


def torch_bias_init(fan_in: int) -> Callable[..., jax.Array]:
  bound = fan_in**-0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Dense(nn.Dense):
  """nn.Dense with `forms.product`; `remat` can keep the result."""

  dot_general: Any = lambda x, kernel, *_, **__: forms.product(x, kernel)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., C_in] -> [..., features]."""
    return remat.saved(super().__call__(x))


_part = contextvars.ContextVar("part", default=(0, 1))  # (part, parts) of `part_of_batch`


@contextlib.contextmanager
def part_of_batch(part: int | jax.Array, parts: int) -> Iterator[None]:
  """Models traced in this context process rows part, part + parts, ... of a batch; part may be traced.

  Drop path then drops the same rows as it would in the whole batch.
  """
  token = _part.set((part, parts))
  try:
    yield
  finally:
    _part.reset(token)


class Dropout(nn.Dropout):
  """nn.Dropout, active if train is True, with different random numbers for each part of a batch."""

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    if not train or self.rate == 0.0:
      return x
    part, _ = _part.get()
    return super().__call__(x, deterministic=False, rng=jax.random.fold_in(self.make_rng("dropout"), part))


class Mlp(nn.Module):
  """Dense, GELU, Dense over the last axis; [..., C] -> [..., C].

  approximate: tanh GELU (Flax's default, so the original Mixer's) instead of exact GELU.
  bias_init: maps a layer's fan-in to its initializer.
  """

  hidden_dim: int
  dropout: float = 0.0
  approximate: bool = False
  kernel_init: Any = nn.linear.default_kernel_init
  bias_init: Any = lambda fan_in: _ZEROS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    dense = dict(kernel_init=self.kernel_init, dtype=self.dtype)
    out = Dense(self.hidden_dim, bias_init=self.bias_init(x.shape[-1]), **dense)(x)
    out = nn.gelu(out, approximate=True) if self.approximate else forms.gelu(out)
    out = Dropout(self.dropout)(out, train)
    out = Dense(x.shape[-1], bias_init=self.bias_init(self.hidden_dim), **dense)(out)
    return Dropout(self.dropout)(out, train)


class LayerNorm(nn.Module):
  """Layer normalization (arXiv 1607.06450) over the last axis; [..., C] -> [..., C] in `dtype`.

  Same values and parameters as nn.LayerNorm. `factor` multiplies the result and broadcasts against it.
  """

  epsilon: float = 1e-6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, factor: jax.Array | float | None = None) -> jax.Array:
    scale, bias = _scale_and_bias(self, x.shape[-1])
    return forms.layer_norm(x, scale, bias, self.epsilon, self.dtype, factor)


class GroupNorm1(nn.Module):
  """GroupNorm (arXiv 1803.08494) with one group: normalizes each example over all positions and channels.

  [B, ..., C] -> the same shape in `dtype`, with the values and parameters of nn.GroupNorm. A mask, bool and
  broadcasting against the input, restricts the statistics to positions where it is True.

  features: number of scales and biases; None for C.
  arrange: maps scales and biases to an array that broadcasts against the input.
  """

  features: int | None = None
  arrange: Callable[[jax.Array], jax.Array] = lambda values: values
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    scale, bias = map(self.arrange, _scale_and_bias(self, self.features or x.shape[-1]))
    return forms.group_norm(x, scale, bias, self.epsilon, self.dtype, mask)


class Affine(nn.Module):
  """ResMLP's alpha * x + beta per channel (arXiv 2105.03404, Eq. 1), times factor; [..., C] -> [..., C] in `dtype`."""

  init_value: float = 1.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, factor: jax.Array | float | None = None) -> jax.Array:
    scale, bias = _scale_and_bias(self, x.shape[-1], self.init_value)
    return forms.affine(x, scale, bias, self.dtype, factor)


def _scale_and_bias(module, channels, init_value=1.0):
  scale = module.param("scale", nn.initializers.constant(init_value), (channels,))
  return scale, module.param("bias", _ZEROS, (channels,))


@dataclasses.dataclass(frozen=True)
class DropPath:
  """Stochastic depth (arXiv 1603.09382) of one block: drops whole branches of an example. Without masks, keeps all.

  kept: bool [B, branches].
  scale: of the kept branches.
  """

  kept: jax.Array | None = None
  scale: float = 1.0

  def __call__(self, x: jax.Array, branch: int) -> jax.Array:
    """[B, ...], the result of a branch -> the same shape, scaled or zero."""
    if self.kept is None:
      return x
    return jnp.where(self._mask(x, branch), x if self.scale == 1.0 else x * self.scale, jnp.zeros_like(x))

  def factor(self, x: jax.Array, branch: int) -> jax.Array | float:
    """The factor that a call applies to x [B, ...], float32 [B, 1, ...]; a norm can apply it instead."""
    return 1.0 if self.kept is None else jnp.where(self._mask(x, branch), self.scale, 0.0)

  def _mask(self, x, branch):
    return self.kept[:, branch].reshape(-1, *[1] * (x.ndim - 1))


def drop_paths(
  make_key: Callable[[], jax.Array], rates: list[float], rows: int, *, branches: int = 2, rescale: bool = True
) -> list[DropPath]:
  """The drop path of each block of a model in training, for a batch, or its part, of this many rows.

  All branches are drawn at once, because XLA on CPU compiles two loops for each draw.

  Args:
    make_key: makes the key; called if any rate is not 0.
    rates: of each block; the probability to drop a branch.
    rows, branches: of the masks.
    rescale: divide the kept branches by 1 - rate, as timm and DeiT do; the original Mixer code does not.
  """
  if not any(rates):
    return [DropPath()] * len(rates)
  kept = bernoulli_rows(make_key(), 1.0 - jnp.repeat(jnp.asarray(rates), branches), (rows, len(rates) * branches))
  scales = [1.0 / (1.0 - rate) if rescale else 1.0 for rate in rates]
  return [
    DropPath(kept[:, i * branches : (i + 1) * branches], scales[i]) if rate else DropPath()
    for i, rate in enumerate(rates)
  ]


def bernoulli_rows(key: jax.Array, probability: float | jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """bool of this shape, True with `probability`; an image's row does not depend on the parts of `part_of_batch`.

  probability: broadcasts against a row.
  """
  part, parts = _part.get()
  return jax.random.bernoulli(key, probability, (shape[0], parts, *shape[1:]))[:, part]


def keys_of_rows(key: jax.Array, rows: int) -> jax.Array:
  """A key for each of the `rows` images of a batch, or of its part; an image's does not depend on the parts."""
  part, parts = _part.get()
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows) * parts + part)


def drop_path_rates(rate: float, num_blocks: int) -> list[float]:
  """Drop rates per block, from 0 in the first block linearly to `rate` in the last."""
  return [rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]


def attributes(module: type[nn.Module]) -> list[str]:
  """The names of the attributes that a linen module class declares."""
  return [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]
