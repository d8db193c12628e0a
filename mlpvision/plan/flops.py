"""Floating-point operations of matrix products and convolutions, from their HLO.

On TPU, the optimised HLO has convolutions only: matrix products are those without a window. Where a product overlaps
with the fetching of its operand, it has a window of which parts lie in padding, and cost nothing.
"""

import math
import re

from mlpvision.plan import hlo


def flops(module: hlo.Module, computation: str, op: hlo.Op) -> int:
  """Of an operation in a computation of a `hlo.Module`, with what is fused into it; 2 for each multiply-add."""
  if op.opcode == "fusion":
    return sum(flops(module, name, inner) for name in op.called for inner in module.computations[name].values())
  if op.opcode not in ("convolution", "dot"):
    return 0
  left, right = (hlo.shape(module.computations[computation][name].type) for name in op.operands)
  result = hlo.shape(op.type)
  if op.opcode == "dot":
    dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", op.attributes)[1]
    return 2 * math.prod(result) * math.prod(left[int(i)] for i in dims.split(",") if i)
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.attributes).groups()
  left, right, result = (
    dict(zip(names, sizes, strict=True)) for names, sizes in zip(labels, (left, right, result), strict=True)
  )
  window = re.search(r"window=\{([^}]*)\}", op.attributes)
  window = dict(part.split("=") for part in window[1].split()) if window else {}
  places = math.prod(
    _pairs(left[label], right[label], result[label], {key: value.split("x")[i] for key, value in window.items()})
    for i, label in enumerate(sorted(label for label in result if label.isdigit()))
  )
  return 2 * result["b"] * result["f"] * right["i"] * places


def _pairs(size, kernel, result, window):
  """How many (output, kernel) positions of one dimension meet an input, and neither padding nor a hole."""
  stride, left_dilate, right_dilate = (int(window.get(key, 1)) for key in ("stride", "lhs_dilate", "rhs_dilate"))
  before = int(window.get("pad", "0_0").split("_")[0])
  positions = (o * stride + k * right_dilate - before for o in range(result) for k in range(kernel))
  return sum(0 <= at <= (size - 1) * left_dilate and at % left_dilate == 0 for at in positions)
