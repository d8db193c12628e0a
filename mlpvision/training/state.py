"""All that a step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mlpvision import sharding


@flax.struct.dataclass
class TrainState:
  """step: int32 []; params: float32 tree; ema: a tree like params, or None; opt_state: optax's."""

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any


def make_init(model, optimizer, *, image_size, ema):
  """A function from a key to a fresh `TrainState`."""

  def init(key):
    params = model.init(key, jnp.zeros((1, image_size, image_size, 3)))["params"]
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(params))

  return init


def abstract_state(init, mesh, rules=()):
  """Shapes, types and shardings of the state, without computing it; what checkpoints are restored into.

  rules: as `sharding.tree_shardings` takes them.
  """
  shapes = jax.eval_shape(init, jax.random.key(0))
  shardings = sharding.tree_shardings(shapes, mesh, rules)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def create(init, abstract, seed):
  """The state of step 0, each leaf made where it will lie."""
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  return jax.jit(init, out_shardings=shardings)(jax.random.key(seed))
