"""A model's matrix products alone: what its step would cost if shifts, norms, activations and the update cost nothing.

That is XLA's own ceiling for the model. Products are read off the traced function, so they have the shapes, the views
and the transpositions that the model's have; each runs as a program of its own, on random numbers. A convolution (only
the patch embedding is one) counts as the matrix product that computes it.
"""

import collections
from collections.abc import Callable, Mapping
import math
from typing import Any

import jax

from mlpvision.models import cost


def collect(function: Callable[..., Any], *arguments: Any) -> collections.Counter:
  """Counter of the products of function(*arguments): {(left shape, right shape, dtype, dimension numbers): times}."""
  found = collections.Counter()
  _walk(jax.make_jaxpr(function)(*arguments).jaxpr, found, 1)
  return found


def flops(products: Mapping[Any, int]) -> int:
  """Of all of them: two for each multiply-accumulate."""
  total = 0
  for (left, right, _, ((contracted, _), (batch, _))), times in products.items():
    kept = math.prod(right) // math.prod(left[i] for i in (*contracted, *batch))
    total += 2 * math.prod(left) * kept * times
  return total


def make_call(products: Mapping[Any, int]) -> Callable[[], None]:
  """A function without arguments that computes all of them, one after the other."""
  calls = []
  for i, ((left, right, dtype, dimensions), times) in enumerate(sorted(products.items(), key=repr)):
    keys = jax.random.split(jax.random.key(i))
    operands = [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, (left, right), strict=True)]
    product = jax.jit(lambda a, b, dimensions=dimensions: jax.lax.dot_general(a, b, dimensions))
    calls.append((product, operands, times))

  def call():
    for product, operands, times in calls:
      for _ in range(times):
        product(*operands).block_until_ready()

  return call


def _walk(jaxpr, found, times):
  for equation in jaxpr.eqns:
    name, inputs = equation.primitive.name, [x.aval for x in equation.invars]
    if name == "dot_general":
      left, right = inputs
      found[left.shape, right.shape, left.dtype.name, equation.params["dimension_numbers"]] += times
    elif name == "conv_general_dilated":
      found[_as_product(equation)] += times
    elif name == "cond":  # the platforms' forms of the same; any other one computes as much in all its branches
      forms = equation.params.get("branches_platforms") or (None,)
      here = next(i for i, platforms in enumerate(forms) if platforms is None or jax.default_backend() in platforms)
      _walk(equation.params["branches"][here].jaxpr, found, times)
    else:
      for inner in cost.inner_jaxprs(equation):
        _walk(inner, found, times * equation.params.get("length", 1))


def _as_product(equation):
  (_, kernel), out = (x.aval for x in equation.invars), equation.outvars[0].aval
  numbers = equation.params["dimension_numbers"]
  features = out.shape[numbers.out_spec[1]]
  contracted = kernel.size // kernel.shape[numbers.rhs_spec[0]]
  return (out.size // features, contracted), (contracted, features), out.dtype.name, (((1,), (0,)), ((), ()))
