"""Parameters and multiply-accumulates of any model, counted from its trace: nothing is computed."""

from collections.abc import Iterator
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp


def count(model: nn.Module, image_size: int | tuple[int, int] = 224) -> dict[str, int]:
  """Exact counts for one image.

  Args:
    model: a module of `models.create`.
    image_size: side in pixels, or (height, width).

  Returns:
    {"parameters": int, "macs": int}. macs are the multiply-accumulates of all matrix products and convolutions, what
    the papers call FLOPs; norms, activations, biases, pooling and shifts count nothing.
  """
  height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
  images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  # One trace for both: initial values take no products.
  jaxpr, (_, variables) = jax.make_jaxpr(model.init_with_output, return_shape=True)(jax.random.key(0), images)
  return {"parameters": sum(x.size for x in jax.tree.leaves(variables)), "macs": _macs(jaxpr.jaxpr)}


def _macs(jaxpr):
  total = 0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      shape = equation.invars[0].aval.shape
      total += equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    elif name == "conv_general_dilated":
      kernel = equation.invars[1].aval
      features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
      total += equation.outvars[0].aval.size * kernel.size // features
    elif name == "cond":  # one of the branches runs
      macs = [_macs(branch.jaxpr) for branch in equation.params["branches"]]
      # A platform's own form may do more, to be faster; the default, which is the last, is what the model asks for.
      total += macs[-1] if equation.params.get("branches_platforms") else max(macs)
    else:
      total += equation.params.get("length", 1) * sum(_macs(inner) for inner in inner_jaxprs(equation))
  return total


def inner_jaxprs(equation: Any) -> Iterator[Any]:
  """The jaxprs that an equation such as pjit, remat or custom_vjp_call calls."""
  for value in equation.params.values():
    if hasattr(value, "eqns"):
      yield value
    elif hasattr(value, "jaxpr"):
      yield value.jaxpr
