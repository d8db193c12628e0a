"""Parses XLA's optimized HLO, the text of `jax.stages.Compiled.as_text`, into computations and operations.

On TPU, an operation's backend_config contains the compiler's estimate of its cycles; a fusion's includes everything
inside it.
"""

import dataclasses
import math
import re

_BITS = {"pred": 8}  # other names contain the number of bits
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(
  r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%[\w.\-]+)"
)
_NAME = re.compile(r"%([\w.\-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Op:
  """One instruction.

  Attributes:
    name, opcode, type: as in the text; the type includes the layout.
    operands: names of instructions in the same computation.
    called: names of computations: a fusion's, a loop's body and condition, a conditional's branches.
    op_name: its origin in the program, e.g. "jit(train_step)/jvp(S2MLP)/block_0/...".
    cycles: the compiler's estimate, or None.
    trips: a loop's number of passes if the text contains it, or None.
    attributes: the text after the operands.
  """

  name: str
  opcode: str
  type: str
  operands: tuple[str, ...]
  called: tuple[str, ...]
  op_name: str
  cycles: int | None
  trips: int | None
  attributes: str


@dataclasses.dataclass(frozen=True)
class Module:
  """computations: {name: {name of instruction: Op}}, in order; roots: {computation: name of its result}."""

  entry: str
  computations: dict[str, dict[str, Op]]
  roots: dict[str, str]


def parse(text: str) -> Module:
  """Parses a module. Raises ValueError if it has no entry computation."""
  computations, roots, entry, current = {}, {}, None, None
  for line in text.splitlines():
    if not line.startswith(" "):
      match = _COMPUTATION.match(line)
      if match:
        current = match[2]
        computations[current] = {}
        entry = current if match[1] else entry
      continue
    match = _INSTRUCTION.match(line)
    if match and current:
      op = _parse_op(match[2], line[match.end() :])
      computations[current][op.name] = op
      if match[1]:
        roots[current] = op.name
  if entry is None:
    raise ValueError("no ENTRY computation: this is no HLO module")
  return Module(entry, computations, roots)


def num_bytes(type_: str, *, in_hbm: bool = False) -> int:
  """Bytes, without padding, of the type of an array or tuple such as "(bf16[64,768]{1,0:T(8,128)}, s32[])".

  in_hbm: skip arrays in on-chip memory, which have "S(1)" in their layout.
  """
  total = 0
  for name, shape, layout in _ARRAY.findall(type_):
    if in_hbm and "S(" in layout:
      continue
    digits = re.search(r"\d+", name)
    bits = _BITS.get(name) or (int(digits[0]) if digits else 0)
    total += bits * math.prod(_sizes(shape)) / 8
  return math.ceil(total)


def shape(type_: str) -> tuple[int, ...]:
  """The sizes of an array's type, e.g. (64, 768)."""
  return tuple(_sizes(_ARRAY.search(type_)[2]))


def parts(type_: str) -> list[str]:
  """The element types of a tuple's type; [type_] for an array."""
  return [part.strip() for part in _split(type_[1:-1])] if type_.startswith("(") else [type_]


def _sizes(text):
  return [int(size) for size in text.split(",") if size]


def _parse_op(name, rest):
  end = _balanced(rest) if rest.startswith("(") else rest.index(" ")
  type_, rest = rest[:end], rest[end:].lstrip()
  opcode, _, rest = rest.partition("(")
  end = _balanced(f"({rest}") - 1
  arguments, attributes = rest[: end - 1], rest[end:]
  if opcode == "constant":  # has its value in place of operands
    attributes = f"({arguments}){attributes}"
    arguments = ""
  called = [name for found in _CALLED.findall(attributes) for name in _NAME.findall(found)]
  op_name = re.search(r'op_name="([^"]*)"', attributes)
  estimate, trips = _CYCLES.search(attributes), _TRIPS.search(attributes)
  return Op(
    name, opcode, type_, tuple(_NAME.findall(arguments)), tuple(called), op_name[1] if op_name else "",
    int(estimate[1]) if estimate else None, int(trips[1]) if trips else None, attributes,
  )  # fmt: skip


def _balanced(text):
  """The position after the parenthesis that closes the first one."""
  depth = 0
  for i, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if depth == 0:
      return i + 1
  raise ValueError(f"a parenthesis is never closed: {text[:80]}")


def _split(text):
  """Splits at commas that are in no bracket."""
  parts, depth, start = [], 0, 0
  for i, character in enumerate(text):
    depth += (character in "([{") - (character in ")]}")
    if character == "," and depth == 0:
      parts.append(text[start:i])
      start = i + 1
  return [*parts, text[start:]]
