"""A traced function in plain primitives: no choices of a platform, no custom derivatives, no negative padding.

Sums over several axes become one sum for each axis. A runtime may add all terms one after another, which loses digits:
onnxruntime 1.32 does for group normalization, whose sums have 300,000 terms in AS-MLP-T.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

# Which hold a program that is called once: their derivatives and what is kept for them do not matter here.
_CALLS = ("jit", "custom_jvp_call", "custom_vjp_call", "checkpoint")
_PLATFORM = "cpu"


def plain(traced: core.ClosedJaxpr, *inputs: jax.Array) -> list[jax.Array]:
  """The outputs of a function for its inputs, to be traced again: `jax.make_jaxpr(partial(plain, traced))(*inputs)`.

  Of `lax.platform_dependent`, what is for CPUs is taken; `pad` becomes slices and concatenations; each sum is over one
  axis.

  traced: of `jax.make_jaxpr`, also with symbolic shapes.
  """
  return _outputs(traced.jaxpr, traced.consts, inputs)


def _outputs(jaxpr: core.Jaxpr, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

  def read(variable):
    return variable.val if isinstance(variable, core.Literal) else values[variable]

  for equation in jaxpr.eqns:
    found = _of_equation(equation, [read(variable) for variable in equation.invars])
    values.update(zip(equation.outvars, found, strict=True))
  return [read(variable) for variable in jaxpr.outvars]


def _of_equation(equation, inputs):
  name, params = equation.primitive.name, equation.params
  if name == "platform_index":
    return [next(i for i, names in enumerate(params["platforms"]) if names is None or _PLATFORM in names)]
  if name == "cond" and isinstance(inputs[0], int):  # from the line above
    return plain(params["branches"][inputs[0]], *inputs[1:])
  if name in _CALLS:
    inner = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    return plain(inner, *inputs) if isinstance(inner, core.ClosedJaxpr) else _outputs(inner, (), inputs)
  if name == "pad" and not any(interior for _, _, interior in params["padding_config"]):
    return [_padded(*inputs, params["padding_config"])]
  if name == "reduce_sum" and len(params["axes"]) > 1:
    (x,) = inputs
    for axis in sorted(params["axes"], reverse=True):
      x = equation.primitive.bind(x, **params | {"axes": (axis,)})
    return [x]
  found = equation.primitive.bind(*inputs, **params)
  return found if equation.primitive.multiple_results else [found]


def _padded(x, value, config):
  """`lax.pad` without interior padding."""
  for axis, (low, high, _) in enumerate(config):
    if min(low, high) < 0:
      x = lax.slice_in_dim(x, max(0, -low), x.shape[axis] - max(0, -high), axis=axis)
    edges = [lax.full((*x.shape[:axis], count, *x.shape[axis + 1 :]), value) for count in (low, high) if count > 0]
    if edges:
      x = lax.concatenate([*edges[: low > 0], x, *edges[low > 0 :]], axis)
  return x
