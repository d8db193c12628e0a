"""All that a step changes."""

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
  """step: int32 []; params: float32 tree; ema: a tree like params, or None; opt_state: optax's."""

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any


def make_init(
  model: nn.Module, optimizer: optax.GradientTransformation, *, image_size: int, ema: bool
) -> Callable[..., TrainState]:
  """A function from a key to a fresh `TrainState`.

  Its second argument, {"path/of/leaf": array}, replaces leaves of the parameters, and so of their average.
  """

  def init(key, given=None):
    params = model.init(key, jnp.zeros((1, image_size, image_size, 3)))["params"]
    params = flatten_dict(params, sep="/")
    params = unflatten_dict({path: (given or {}).get(path, leaf) for path, leaf in params.items()}, sep="/")
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(params))

  return init


def abstract_state(
  init: Callable[..., TrainState], mesh: jax.sharding.Mesh, rules: Iterable[tuple[str, Sequence[Any]]] = ()
) -> TrainState:
  """Shapes, types and shardings of the state, without computing it; what checkpoints are restored into.

  rules: as `sharding.tree_shardings` takes them.
  """
  shapes = jax.eval_shape(init, jax.random.key(0))
  model_axis = tuple(rule for family in models.FAMILIES for rule in family.model_axis)
  shardings = sharding.tree_shardings(shapes, mesh, rules, model_axis)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def create(
  init: Callable[..., TrainState], abstract: TrainState, seed: int, given: Mapping[str, np.ndarray] | None = None
) -> TrainState:
  """The state of step 0, each leaf made where it will lie.

  Args:
    init: from `make_init`.
    abstract: from `abstract_state`.
    seed: int.
    given: {"path/of/leaf": NumPy array}, parameters to start from; the same in every process.
  """
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  targets = flatten_dict(abstract.params, sep="/")
  placed = {
    path: jax.make_array_from_callback(array.shape, targets[path].sharding, array.__getitem__)
    for path, array in (given or {}).items()
  }
  return jax.jit(init, out_shardings=shardings)(jax.random.key(seed), placed)
