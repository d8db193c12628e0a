"""What the families' tests share: the golden files (arrays that the original implementations computed) and counts."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mlpvision import models
from mlpvision.weights import naming, tables

_DATA = Path(__file__).parents[1] / "data"


class Golden:
  """meta: the constructor's arguments; images; params: by the original's names; out: what the original computed."""

  def __init__(self, name):
    with np.load(_DATA / f"{name}.npz", allow_pickle=False) as file:
      arrays = dict(file)
    self.meta = json.loads(bytes(arrays.pop("meta")).decode())
    self.images = arrays.pop("input")
    self.params, self.out = (
      {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
      for prefix in ("param/", "out/")
    )


def ours(state):
  """Parameters in the original's naming, {name: array}, as ours."""
  _, table = tables.identify(list(state))
  found = {name: table.ours(name) for name in state if not table.skips(name)}
  return naming.unflatten({path: transform(np.asarray(state[name])) for name, (path, transform) in found.items()})


def relative_error(actual, expected):
  return np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected)


def shapes(model, height, width=None):
  """The shapes of the parameters that the model makes for images of this size; computes nothing."""
  images = jax.ShapeDtypeStruct((1, height, width or height, 3), jnp.float32)
  return jax.tree.map(lambda x: x.shape, jax.eval_shape(model.init, jax.random.key(0), images)["params"])


def count(name, image_size):
  """The number of parameters of a variant, with 1000 classes."""
  tree = shapes(models.create(name), image_size)
  return sum(np.prod(shape) for shape in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, tuple)))
