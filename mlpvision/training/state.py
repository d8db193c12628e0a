"""The training state: everything that a step changes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flax import linen as nn
import flax.struct
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlpvision import models, sharding


@flax.struct.dataclass
class TrainState:
  """step: int32 []; params: float32 tree; ema: such a tree, or None; opt_state: the optimizer's."""

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any


def make_init(
  model: nn.Module, optimizer: optax.GradientTransformation, *, image_size: int, ema: bool
) -> Callable[..., TrainState]:
  """A function (key, loaded) -> initial `TrainState`; loaded, {"path/of/leaf": array}, replaces random parameters."""

  def init(key, loaded=None):
    params = model.init(key, jnp.zeros((1, image_size, image_size, 3)))["params"]
    params = flatten_dict(params, sep="/")
    params = unflatten_dict({path: (loaded or {}).get(path, leaf) for path, leaf in params.items()}, sep="/")
    averages = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, averages, optimizer.init(params))

  return init


def abstract_state(
  init: Callable[..., TrainState], mesh: jax.sharding.Mesh, rules: Iterable[tuple[str, Sequence[Any]]] = ()
) -> TrainState:
  """Shapes, dtypes and shardings of the state, without computing it. rules: see `sharding.tree_shardings`."""
  shapes = jax.eval_shape(init, jax.random.key(0))
  model_axis = tuple(rule for family in models.FAMILIES for rule in family.model_axis)
  shardings = sharding.tree_shardings(shapes, mesh, rules, model_axis)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def create(
  init: Callable[..., TrainState], abstract: TrainState, seed: int, loaded: Mapping[str, np.ndarray] | None = None
) -> TrainState:
  """The state of step 0, computed in its shardings. loaded: {"path/of/leaf": array}, the same on every process."""
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  targets = flatten_dict(abstract.params, sep="/")
  placed = {
    path: jax.make_array_from_callback(array.shape, targets[path].sharding, array.__getitem__)
    for path, array in (loaded or {}).items()
  }
  return jax.jit(init, out_shardings=shardings)(jax.random.key(seed), placed)
