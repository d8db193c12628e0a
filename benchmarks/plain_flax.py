"""Mixer, ResMLP, S2-MLP and AS-MLP of plain flax layers under plain `jax.jit`, to compare our step with.

They compute the same as `mlpvision.models`, from parameters of the same names, without drop path and dropout.
"""

from collections.abc import Callable, Mapping
from functools import partial
import os
import pathlib
import time
from typing import Any

import flax
from flax import linen as nn, traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpvision import augment, commands, tasks
from mlpvision.benchmark import own_step

_gelu = partial(nn.gelu, approximate=False)


class _Mlp(nn.Module):
  hidden_dim: int
  gelu: Any = _gelu
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    y = self.gelu(nn.Dense(self.hidden_dim, dtype=self.dtype, name="Dense_0")(x))
    return nn.Dense(x.shape[-1], dtype=self.dtype, name="Dense_1")(y)


class _Affine(nn.Module):
  @nn.compact
  def __call__(self, x):
    scale, bias = (self.param(name, nn.initializers.ones, x.shape[-1:]) for name in ("scale", "bias"))
    return x * scale.astype(x.dtype) + bias.astype(x.dtype)


def _stem(model, images):
  patch = (model.patch_size, model.patch_size)
  return nn.Conv(model.hidden_dim, patch, patch, "VALID", dtype=model.dtype, name="stem")(images)


class Mixer(nn.Module):
  """Images [B, H, W, 3] -> logits; model: our `MlpMixer`, whose attributes it takes."""

  model: nn.Module

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    model, dtype = self.model, self.model.dtype
    gelu = partial(nn.gelu, approximate=model.approximate_gelu)
    x = _stem(model, images)
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    for i in range(model.num_blocks):
      x = _MixerBlock(model.tokens_mlp_dim, model.channels_mlp_dim, gelu, dtype, name=f"MixerBlock_{i}")(x)
    x = nn.LayerNorm(dtype=dtype, name="pre_head_layer_norm")(x)
    return nn.Dense(model.num_classes, name="head")(x.mean(1).astype(jnp.float32))


class _MixerBlock(nn.Module):
  tokens_mlp_dim: int
  channels_mlp_dim: int
  gelu: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm_0")(x).swapaxes(1, 2)
    x = x + _Mlp(self.tokens_mlp_dim, self.gelu, self.dtype, name="token_mixing")(y).swapaxes(1, 2)
    y = nn.LayerNorm(dtype=self.dtype, name="LayerNorm_1")(x)
    return x + _Mlp(self.channels_mlp_dim, self.gelu, self.dtype, name="channel_mixing")(y)


class ResMLP(nn.Module):
  """Images [B, H, W, 3] -> logits; model: our `ResMLP`."""

  model: nn.Module

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    model = self.model
    x = _stem(model, images)
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    for i in range(model.num_blocks):
      x = _ResMLPBlock(int(model.hidden_dim * model.mlp_ratio), model.dtype, name=f"block_{i}")(x)
    return nn.Dense(model.num_classes, name="head")(_Affine(name="norm")(x).mean(1).astype(jnp.float32))


class _ResMLPBlock(nn.Module):
  hidden_dim: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    def scale(name):
      return self.param(name, nn.initializers.ones, x.shape[-1:]).astype(x.dtype)

    y = _Affine(name="norm1")(x).swapaxes(1, 2)
    x = x + scale("layer_scale1") * nn.Dense(x.shape[1], dtype=self.dtype, name="linear_tokens")(y).swapaxes(1, 2)
    y = _Mlp(self.hidden_dim, dtype=self.dtype, name="channel_mixing")(_Affine(name="norm2")(x))
    return x + scale("layer_scale2") * y


def _spatial_shift(x):
  right, left, down, up = jnp.split(x, 4, -1)
  return jnp.concatenate(
    (
      jnp.concatenate((right[:, :, :1], right[:, :, :-1]), 2),
      jnp.concatenate((left[:, :, 1:], left[:, :, -1:]), 2),
      jnp.concatenate((down[:, :1], down[:, :-1]), 1),
      jnp.concatenate((up[:, 1:], up[:, -1:]), 1),
    ),
    -1,
  )


class S2MLP(nn.Module):
  """Images [B, H, W, 3] -> logits; model: our `S2MLP`, with the paper's options."""

  model: nn.Module

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    model, dtype = self.model, self.model.dtype
    norm = _Affine if model.norm == "affine" else partial(nn.LayerNorm, epsilon=1e-6, dtype=dtype)
    x = norm(name="stem_norm")(_stem(model, images))
    for i in range(model.num_blocks):
      x = _S2Block(int(model.hidden_dim * model.mlp_ratio), norm, dtype, name=f"block_{i}")(x)
    return nn.Dense(model.num_classes, name="head")(x.mean((1, 2)).astype(jnp.float32))


class _S2Block(nn.Module):
  hidden_dim: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    dense = partial(nn.Dense, x.shape[-1], dtype=self.dtype)
    y = dense(name="spatial_fc2")(_spatial_shift(_gelu(dense(name="spatial_fc1")(x))))
    x = x + self.norm(name="spatial_norm")(y)
    return x + self.norm(name="channel_norm")(_Mlp(self.hidden_dim, dtype=self.dtype, name="channel_mixing")(x))


def _axial_shift(x, size, axis):
  reach, length = size // 2, x.shape[axis]
  padded = jnp.pad(x, [(reach, reach) if i == axis else (0, 0) for i in range(4)])
  width = -(-x.shape[-1] // size)
  moved = (
    jax.lax.slice_in_dim(padded[..., g * width : (g + 1) * width], size - 1 - g, size - 1 - g + length, axis=axis)
    for g in range(size)
  )
  return jnp.concatenate(tuple(moved), -1)


class ASMLP(nn.Module):
  """Images [B, H, W, 3] -> logits; model: our `ASMLP`, with the paper's options."""

  model: nn.Module

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    model, dtype = self.model, self.model.dtype
    norm = partial(nn.GroupNorm, num_groups=1, epsilon=1e-5, dtype=dtype)
    x = norm(name="stem_norm")(_stem(model, images))
    for stage, depth in enumerate(model.depths):
      if stage:
        x = _Merge(norm, dtype, name=f"merge_{stage - 1}")(x)
      for i in range(depth):
        x = _ASBlock(model.shift_size, model.mlp_ratio, norm, dtype, name=f"stage_{stage}_block_{i}")(x)
    return nn.Dense(model.num_classes, name="head")(norm(name="norm")(x).mean((1, 2)).astype(jnp.float32))


class _Merge(nn.Module):
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    y = self.norm(name="norm")(jnp.concatenate(corners, -1))
    return nn.Dense(2 * x.shape[-1], use_bias=False, dtype=self.dtype, name="reduction")(y)


class _AxialShift(nn.Module):
  size: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    dense = partial(nn.Dense, x.shape[-1], dtype=self.dtype)
    x = _gelu(self.norm(name="norm1")(dense(name="conv1")(x)))
    horizontal = _gelu(dense(name="conv2_1")(_axial_shift(x, self.size, 2)))
    vertical = _gelu(dense(name="conv2_2")(_axial_shift(x, self.size, 1)))
    return dense(name="conv3")(self.norm(name="norm2")(horizontal + vertical))


class _ASBlock(nn.Module):
  shift_size: int
  mlp_ratio: float
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    y = self.norm(name="norm1")(x)
    x = x + _AxialShift(self.shift_size, self.norm, self.dtype, name="axial_shift")(y)
    mlp = _Mlp(int(x.shape[-1] * self.mlp_ratio), dtype=self.dtype, name="channel_mixing")
    return x + mlp(self.norm(name="norm2")(x))


_MODULES = {"MlpMixer": Mixer, "ResMLP": ResMLP, "S2MLP": S2MLP, "ASMLP": ASMLP}


def create(model: nn.Module) -> nn.Module:
  """The plain module of one of our models, of a family of `peers.FORMS`."""
  return _MODULES[type(model).__name__](model)


def make(
  config: Mapping[str, Any], directory: str | os.PathLike
) -> tuple[dict[str, Any], Callable[[str], tuple[float, float]]]:
  """(facts, turn) as `own_step.serve` returns them; glibc keeps freed memory, as in our commands.

  Args:
    config: the whole config, as a dict.
    directory: where `own_step.make` has saved its parameters.
  """
  commands.keep_freed_memory()
  config = own_step.plain(config)
  module = create(tasks.make_model(config, own_step.NUM_CLASSES))
  with np.load(pathlib.Path(directory, "params.npz")) as flat:
    params = jax.device_put(traverse_util.unflatten_dict(dict(flat), sep="/"))
  optimizer = optax.adamw(
    config.optim.learning_rate,
    weight_decay=config.optim.weight_decay,
    mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
  )
  batch = jax.device_put(tasks.random_batch(config, own_step.NUM_CLASSES))

  @jax.jit
  def forward(params, images):
    return module.apply({"params": params}, augment.normalize(images, config.data.mean, config.data.std))

  def step(params, state, batch):
    def loss(params):
      logits = forward(params, batch["image"])
      return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    value, gradients = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  state = [params, optimizer.init(params), None]
  started = time.perf_counter()
  compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*state[:2], batch).compile()
  seconds = time.perf_counter() - started

  def train():
    state[:] = jax.block_until_ready(compiled(*state[:2], batch))

  train()
  facts = {"version": flax.__version__, "loss": float(state[2]), "compile_seconds": {"train": seconds}, "memory": {}}
  calls = {"forward": lambda: jax.block_until_ready(forward(state[0], batch["image"])), "train": train}
  return own_step.serve(facts, calls)
