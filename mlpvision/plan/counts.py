"""The cost of one run of a compiled program, counted from its HLO.

XLA's own sums count the body of a loop once (gradient accumulation, FSDP's gathers that overlap with matrix products).
Here, an operation counts as often as it runs, if the HLO contains the number of passes.
"""

import collections
import dataclasses
import math
import re

from mlpvision.plan import hlo

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
# Operations that do not change a loop's counter.
_SAME_VALUE = ("copy", "copy-start", "copy-done", "bitcast", "reshape", "convert")
# Operations that move no bytes. An asynchronous operation moves its bytes in its start, not again in its done.
_MOVES_NOTHING = (
  "bitcast", "call", "conditional", "constant", "copy-done", "custom-call", "get-tuple-element", "parameter",
  "partition-id", "reshape", "slice-done", "tuple", "while",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Loop:
  """A loop: its origin, the number of passes (None: depends on data), and the cycles of one pass."""

  op_name: str
  trips: int | None
  cycles: int


@dataclasses.dataclass(frozen=True)
class Counts:
  """Totals of one run on one device. A loop with an unknown number of passes counts as one pass.

  Attributes:
    cycles: the sum of the compiler's estimates.
    unknown_cycles: the part of it in loops with an unknown number of passes.
    loops: all loops.
    flops_factor, bytes_factor: the totals divided by sums that count each loop's body once.
    hbm_bytes: read from and written to HBM. XLA's sum also includes on-chip memory, and whole arrays of which only a
      slice is read.
    collectives: {kind: (number, bytes of their results)}.
    kernels: [(cycles, number of runs, opcode, origin), ...], the most expensive first.
  """

  cycles: int
  unknown_cycles: int
  loops: list[Loop]
  flops_factor: float
  bytes_factor: float
  hbm_bytes: int
  collectives: dict[str, tuple[int, int]]
  kernels: list[tuple[int, int, str, str]]


def count(module: hlo.Module) -> Counts:
  """The `Counts` of a module."""
  total, unknown, loops, runs = _visit(module, module.entry)
  once, often, hbm_bytes = [0, 0], [0, 0], 0
  collectives, channels = collections.defaultdict(lambda: [0, 0]), set()
  kernels = collections.defaultdict(lambda: [0, 0])
  for computation, op, times in runs:
    work = (flops(module, computation, op), _bytes(module, computation, op))
    for i in (0, 1):
      once[i] += work[i]
      often[i] += times * work[i]
    hbm_bytes += times * _hbm_bytes(module, computation, op)
    for channel, kind, size in _collectives(module, op):
      if channel not in channels:
        channels.add(channel)
        collectives[kind][0] += times
        collectives[kind][1] += times * size
    if op.cycles:
      kernel = kernels[op.opcode, shorten(op.op_name)]
      kernel[0] += times * op.cycles
      kernel[1] += times
  factors = [b / a if a else 1.0 for a, b in zip(once, often, strict=True)]
  kernels = sorted(((cycles, times, *key) for key, (cycles, times) in kernels.items()), reverse=True)
  collectives = {kind: tuple(found) for kind, found in sorted(collectives.items())}
  return Counts(total, unknown, loops, *factors, hbm_bytes, collectives, kernels)


def flops(module: hlo.Module, computation: str, op: hlo.Op) -> int:
  """Floating-point operations of the products and convolutions in an operation; a multiply-add counts as two.

  On TPU, optimized HLO contains matrix products as convolutions without a window. If a product overlaps with fetching
  its operand, it has a window that is partly padding, which costs nothing.
  """
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
  """Number of (output, kernel) positions of one dimension that read an input element, not padding or a hole."""
  stride, left_dilate, right_dilate = (int(window.get(key, 1)) for key in ("stride", "lhs_dilate", "rhs_dilate"))
  before = int(window.get("pad", "0_0").split("_")[0])
  positions = (o * stride + k * right_dilate - before for o in range(result) for k in range(kernel))
  return sum(0 <= at <= (size - 1) * left_dilate and at % left_dilate == 0 for at in positions)


def _visit(module, computation):
  """(cycles, cycles in unknown loops, loops, [(computation, op, number of runs), ...]) of one run."""
  total, unknown, loops, runs = 0, 0, [], []
  for op in module.computations[computation].values():
    total += op.cycles or 0
    runs.append((computation, op, 1))
    if op.opcode == "while":
      found, trips = [_visit(module, name) for name in op.called], op.trips or _read_trips(module, computation, op)
      loops.append(Loop(op.op_name, trips, sum(cycles for cycles, *_ in found)))
    elif op.opcode in ("conditional", "call"):  # of a conditional's branches, the most expensive
      found, trips = [max((_visit(module, name) for name in op.called), key=lambda branch: branch[0])], 1
    else:
      continue
    times = 1 if trips is None else trips
    for cycles, inner_unknown, inner_loops, inner_runs in found:
      total += times * cycles
      unknown += cycles if trips is None else times * inner_unknown
      loops += inner_loops
      runs += [(where, inner, times * count) for where, inner, count in inner_runs]
  return total, unknown, loops, runs


def _read_trips(module, computation, op):
  """Passes of a loop that counts up, from its condition, its body and its first value; None for other loops."""
  body, condition = (re.search(rf"\b{key}=%([\w.\-]+)", op.attributes)[1] for key in ("body", "condition"))
  test = module.computations[condition][module.roots[condition]]
  if test.opcode != "compare" or "direction=LT" not in test.attributes:
    return None
  index = _element(module, condition, test.operands[0])
  limit = _constant(module, condition, test.operands[1])
  if index is None or limit is None:
    return None
  first = _constant(module, computation, _of_tuple(module, computation, op.operands[0], index))
  following = _source(module, body, _of_tuple(module, body, module.roots[body], index))
  if first is None or following is None or following.opcode != "add":
    return None
  steps = [_constant(module, body, name) for name in following.operands if _element(module, body, name) != index]
  if len(steps) != 1 or steps[0] is None or steps[0] < 1:
    return None
  return max(0, math.ceil((limit - first) / steps[0]))


def _source(module, computation, name):
  """The operation that computes a value, skipping those that do not change it."""
  op = module.computations[computation].get(name)
  while op is not None and op.opcode in _SAME_VALUE:
    op = module.computations[computation].get(op.operands[0])
  return op


def _constant(module, computation, name):
  op = _source(module, computation, name)
  match = op and op.opcode == "constant" and re.match(r"\((-?\d+)\)", op.attributes)
  return int(match[1]) if match else None


def _element(module, computation, name):
  """Index of a value in the computation's argument, or None."""
  op = _source(module, computation, name)
  match = op and op.opcode == "get-tuple-element" and re.search(r"\bindex=(\d+)", op.attributes)
  argument = match and module.computations[computation].get(op.operands[0])
  return int(match[1]) if argument and argument.opcode == "parameter" else None


def _of_tuple(module, computation, name, index):
  op = _source(module, computation, name)
  return op.operands[index] if op and op.opcode == "tuple" else None


def _moves_nothing(op):
  # cuDNN's and cuBLAS's custom calls do.
  return op.opcode in _MOVES_NOTHING and 'custom_call_target="__cu' not in op.attributes


def _bytes(module, computation, op):
  if _moves_nothing(op):
    return 0
  operands = (module.computations[computation].get(name) for name in op.operands)
  return hlo.num_bytes(op.type) + sum(hlo.num_bytes(operand.type) for operand in operands if operand)


def _hbm_bytes(module, computation, op):
  if _moves_nothing(op):
    return 0
  operands = [module.computations[computation].get(name) for name in op.operands]
  types = [operand.type for operand in operands if operand]
  if op.opcode in ("copy-start", "slice-start"):  # reads as much as it writes
    written = hlo.parts(op.type)[1 if op.opcode == "slice-start" else 0]
    return hlo.num_bytes(written) * sum(bool(hlo.num_bytes(x, in_hbm=True)) for x in (written, types[0]))
  return sum(hlo.num_bytes(x, in_hbm=True) for x in (op.type, *types))


def _collectives(module, op):
  """[(channel, kind, bytes of the result), ...] of the collectives in an operation.

  A collective that overlaps with other work occurs several times, in the fusions that start, carry and end it; its
  channel identifies it.
  """
  kind = op.opcode.removesuffix("-start")
  if kind in COLLECTIVES:
    # The type of a start is a tuple of input, output and more.
    types = hlo.parts(op.type)
    is_pair = op.opcode.endswith("-start") and kind != "all-reduce" and len(types) > 1
    channel = re.search(r"\bchannel_id=(\d+)", op.attributes)
    return [(channel[1] if channel else op.name, kind, hlo.num_bytes(types[1] if is_pair else op.type))]
  if op.opcode in ("while", "conditional", "call"):  # their contents are visited separately
    return []
  inner = (inner for name in op.called for inner in module.computations.get(name, {}).values())
  return [found for op_inside in inner for found in _collectives(module, op_inside)]


def shorten(op_name: str) -> str:
  """An op_name without jit(...), block numbers and repeated parts."""
  parts = [part for part in op_name.split("/") if not re.fullmatch(r"jit\(\w+\)", part)]
  parts = [re.sub(r"(?<=[Bb]lock)_\d+", "_*", part) for part in parts]
  return "/".join(part for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]) or "(no name)"
