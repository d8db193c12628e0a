"""Sizes and costs of models, from their trace, and of compiled programs, from the compiler's analysis."""

import collections
from collections.abc import Iterator, Mapping
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

# Functions that resample or compare and whose products are no layer's: papers do not count them.
_NOT_COUNTED = {"multilevel_roi_align", "nms"}
_MEMORY = ("argument", "output", "alias", "temp", "generated_code")


def count(model: nn.Module, image_size: int | tuple[int, int] = 224) -> dict[str, int]:
  """Exact counts for one image.

  Args:
    model: a module of `models.create`.
    image_size: side in pixels, or (height, width).

  Returns:
    {"parameters": int, "macs": int}. macs are the multiply-accumulates of all matrix products and convolutions, which
    the papers call FLOPs; norms, activations, biases, pooling and shifts are not counted.
  """
  height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
  images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  # Initialization runs the model, and adds no products.
  jaxpr, variables = jax.make_jaxpr(model.init, return_shape=True)(jax.random.key(0), images)
  parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
  return {"parameters": parameters, "macs": macs(products(jaxpr.jaxpr))}


def products(jaxpr: Any, platform: str | None = None) -> collections.Counter:
  """Counts how often each matrix product of a jaxpr runs.

  A convolution counts as the matrix product that computes it. Of the forms of `jax.lax.platform_dependent`, the
  platform's counts, or, without a platform, the default, which is the model's definition. Of other branches, the most
  expensive counts.

  Returns:
    {(left shape, right shape, dtype, dimension numbers of dot_general): times}.
  """
  found = collections.Counter()
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == "dot_general":
      left, right = (x.aval for x in equation.invars)
      found[left.shape, right.shape, left.dtype.name, equation.params["dimension_numbers"]] += 1
    elif name == "conv_general_dilated":
      found[_as_product(equation)] += 1
    elif equation.params.get("name") in _NOT_COUNTED:
      continue
    elif name == "cond":
      branches = [products(branch.jaxpr, platform) for branch in equation.params["branches"]]
      forms = equation.params.get("branches_platforms")
      if forms:
        found += next(b for b, names in zip(branches, forms, strict=True) if names is None or platform in names)
      else:
        found += max(branches, key=macs)
    else:
      for inner in _inner_jaxprs(equation):
        for product, times in products(inner, platform).items():
          found[product] += times * equation.params.get("length", 1)
  return found


def macs(counted: Mapping[Any, int]) -> int:
  """Multiply-accumulates of all `products`."""
  total = 0
  for (left, right, _, ((contracted, _), (batch, _))), times in counted.items():
    kept = math.prod(right) // math.prod(left[i] for i in (*contracted, *batch))
    total += times * math.prod(left) * kept
  return total


def memory(compiled: jax.stages.Compiled) -> dict[str, int] | None:
  """{kind: bytes on one device} of a compiled program, or None if the compiler provides no analysis.

  Kinds: argument, output, alias (output that reuses an argument's memory), temp, generated_code and peak.
  """
  analysis = compiled.memory_analysis()
  if analysis is None:
    return None
  sizes = {name: getattr(analysis, f"{name}_size_in_bytes") for name in _MEMORY}
  return sizes | {"peak": getattr(analysis, "peak_memory_in_bytes", 0)}


def allocated(sizes: Mapping[str, int]) -> int:
  """Bytes that the runtime allocates for a program with this `memory`; at least its peak."""
  return sum(sizes[kind] for kind in ("argument", "output", "temp", "generated_code")) - sizes["alias"]


def _as_product(equation):
  (_, kernel), out = (x.aval for x in equation.invars), equation.outvars[0].aval
  numbers = equation.params["dimension_numbers"]
  features = out.shape[numbers.out_spec[1]]
  contracted = kernel.size // kernel.shape[numbers.rhs_spec[0]]
  return (out.size // features, contracted), (contracted, features), out.dtype.name, (((1,), (0,)), ((), ()))


def _inner_jaxprs(equation) -> Iterator[Any]:
  """The jaxprs that an equation such as pjit, remat or custom_vjp_call calls."""
  for value in equation.params.values():
    if hasattr(value, "eqns"):
      yield value
    elif hasattr(value, "jaxpr"):
      yield value.jaxpr
