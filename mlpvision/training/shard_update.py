"""The update sharded over the data axis (ZeRO, arXiv 1910.02054, stage 1, and the parameters between steps).

With `config.mesh.shard_update`, each device of the data axis holds and updates a slice of the parameters, their EMA and
the optimizer's state. A step gathers the parameters once, in the dtype that the blocks compute in, and leaves each
device its slice of the gradients. Together this moves as many bytes as an all-reduce of the gradients.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from mlpvision import models
from mlpvision.models.naming import numbers


def axes(mesh: jax.sharding.Mesh, shard_update: bool) -> tuple[str, ...]:
  """The mesh axes over which large leaves of the state are sharded.

  Over several TPU slices, fsdp alone: the network between slices is too slow to gather parameters.
  """
  slices = {getattr(device, "slice_index", 0) for device in mesh.devices.flat}
  return ("data", "fsdp") if shard_update and len(slices) == 1 else ("fsdp",)


def gatherer(model: nn.Module, sharded: Any, whole: Any) -> Callable[[Any], Any]:
  """The function from a state's parameters to those that the model computes with in a step.

  Kernels of blocks are converted to the model's dtype first, as the blocks would do, so that half the bytes are moved.

  Args:
    model: the module that computes with the parameters.
    sharded, whole: the parameters as trees of ShapeDtypeStruct, with their shardings in the state and in the model.
  """
  templates = {family.block for family in models.FAMILIES}
  dtype = getattr(model, "backbone", model).dtype

  def of_block(path):
    return any(numbers(key.key, template) for key in path for template in templates)

  def leaf(path, x, target):
    if x.sharding == target.sharding:
      return lambda x: x
    computed = dtype if of_block(path) and x.ndim > 1 else x.dtype
    return lambda x, own=x.sharding: _gathered(x, target.sharding, own, computed)

  gathers = jax.tree.map_with_path(leaf, sharded, whole)
  return lambda params: jax.tree.map(lambda gather, x: gather(x), gathers, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gathered(x, whole: NamedSharding, sharded: NamedSharding, dtype):
  return jax.lax.with_sharding_constraint(x.astype(dtype), whole)


def _forward(x, whole, sharded, dtype):
  return _gathered(x, whole, sharded, dtype), None


def _backward(whole, sharded, dtype, _, g):
  # Without the constraint, an all-reduce would give every device the whole gradient. Parameters are float32.
  return (jax.lax.with_sharding_constraint(g, sharded).astype(jnp.float32),)


_gathered.defvjp(_forward, _backward)
