"""A plan in words: every line says whether it is arithmetic or from the compiler. Nothing is ever measured here."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from mlpvision.models import cost
from mlpvision.plan import counts, fit
from mlpvision.plan.plans import Plan

LEGEND = """Nothing was measured. Each line ends with where it is from:
  arithmetic  counted from the config, the model and the chip's published figures
  compiler    what XLA's compiler for the chip says of the compiled step
  estimate    arithmetic on what the compiler says: its cycles over the clock, without waiting for collectives and
              input; its sums times the passes of loops, which it counts once"""

_COLUMNS = (
  "config", "slice", "images a chip", "HBM, GiB: peak, set aside", "GFLOP", "GB: all, HBM", "collectives", "step, ms",
  "roofline, ms: compute, HBM", "MFU", "images/s", "hours", "note",
)  # fmt: skip


def text(plan: Plan, num_kernels: int = 0) -> str:
  """A plan in full, for one slice."""
  final, chip = plan.final, plan.chip
  noun = "GPU" if chip.kind == "GPU" else "chip"
  each = "device, which is half a chip" if chip.devices_per_chip == 2 else noun
  axes = " ".join(f"{name}={size}" for name, size in final.mesh.items() if size > 1) or "one device"
  lines = [
    f"{plan.name} on {plan.first.topology}: {final.devices // chip.devices_per_chip} {noun}s, mesh {axes},"
    f" {final.batch_size:,} images a step; all figures per {each}"
  ]
  if plan.first.is_out_of_memory:
    says = "out of memory, by what the compiler says:" if chip.kind == "GPU" else "out of memory, says the compiler:"
    lines += [says, *_indented(_first_lines(plan.first.found["out_of_memory"]))]
    if plan.fitted is None:
      return "\n".join([*lines, fit.ADVICE])
    lines.append(f"With {fit.as_flags(plan.fitted[1])} it fits:")
  lines += _figures(plan)
  if num_kernels and plan.final.found["cycles"]:
    lines += _kernels(plan.final.found, num_kernels)
  return "\n".join(lines)


def _figures(plan):
  final, found, chip, figures = plan.final, plan.final.found, plan.chip, plan.estimate
  memory, lines = found["memory"], []

  def add(label, value, origin):
    lines.append(f"  {label:22}{value:62}  {origin}")

  add("parameters", f"{final.parameters:,} in the whole model", "arithmetic")
  add("state", f"{_gib(final.state_bytes)}: parameters, their average, optimizer", "arithmetic")
  add("arguments", f"{_gib(memory['argument'])}: state and batch", "compiler")
  add("temporaries", _gib(memory["temp"]), "compiler")
  add("peak of HBM", _gib(memory["peak"]), "compiler")
  add("HBM to be set aside", f"{_gib(cost.allocated(memory))} of {chip.hbm:.2f} GiB that there are", "compiler")
  if figures.flops is not None:
    sums = "compiler" if figures.flops == found["flops"] else "estimate"
    add("work", f"{_short(figures.flops / 1e9)} GFLOP", sums)
    add("bytes accessed", f"{_short(figures.bytes / 1e9)} GB, on-chip memory included", sums)
  add("traffic of HBM", f"{_short(found['hbm_bytes'] / 1e9)} GB, counted in the compiled step", "arithmetic")
  for kind, (number, size) in found["collectives"].items():
    add(kind, f"{number} with {_short(size / 2**20)} MiB", "compiler")
  if not found["collectives"]:
    add("collectives", "none", "compiler")
  for loop in _known_loops(found) if found["cycles"] else ():
    add("loop", f"{loop['trips']} x {loop['cycles']:,} cycles: {counts.shorten(loop['op_name'])[-30:]}", "compiler")
  if found["cycles"]:
    add("cycles", f"{found['cycles']:,}", "compiler")
  add("model's own work", f"{_short(figures.model_flops / 1e9)} GFLOP, no recomputation", "arithmetic")
  roofline = f"{_ms(figures.compute_seconds)} at {chip.tflops:g} TFLOP/s, {_ms(figures.memory_seconds)} at"
  add("at least", f"{roofline} {chip.bandwidth:g} GB/s", "arithmetic")
  if figures.refused:
    add("step", f"no estimate: {figures.refused}", "refused")
    add("recipe", f"at least {_short(figures.least_hours)} hours for {final.total_steps:,} steps", "arithmetic")
  else:
    add("step", f"{_ms(figures.seconds)} at {chip.clock:g} GHz", "estimate")
    add("MFU", f"{figures.mfu:.1%}", "estimate")
    each = figures.images_per_second / final.devices * chip.devices_per_chip
    add("images/s", f"{figures.images_per_second:,.0f}, {each:,.0f} a chip", "estimate")
    add(
      "recipe",
      f"{_short(figures.hours)} hours for {final.total_steps:,} steps of {final.batch_size:,} images",
      "estimate",
    )
  return lines


def _known_loops(found):
  return [loop for loop in found["loops"] if loop["trips"] is not None and loop["trips"] > 1]


def _kernels(found, number):
  lines = [f"  {f'the {number} most expensive kernels, all blocks and passes together:':84}  compiler"]
  for cycles, times, opcode, where in found["kernels"][:number]:
    lines.append(f"  {cycles:>12,} cycles {cycles / found['cycles']:6.1%}  {times:>4} x {opcode:12} {where}")
  return lines


def table(plans: Sequence[Plan]) -> str:
  """Several plans as a Markdown table, with the compiler's own words where one did not fit."""
  rows = [_row(plan) for plan in plans]
  lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
  lines += [f"| {' | '.join(row)} |" for row in rows]
  short = [plan for plan in plans if plan.first.is_out_of_memory]
  if short:
    lines += ["", "Out of memory as the config is, in the compiler's words:", ""]
    lines += [
      f"- {plan.name} on {plan.first.topology}: `{' '.join(_first_lines(plan.first.found['out_of_memory'])[:1])}`"
      for plan in short
    ]
  return "\n".join(lines)


def _row(plan):
  found, chip, figures = plan.final.found, plan.chip, plan.estimate
  start = [f"`{plan.name}`", plan.first.topology]
  if figures is None:
    return [*start, *["–"] * (len(_COLUMNS) - 3), "out of memory"]
  moved = ", ".join(
    f"{number} {kind} {_short(size / 2**20)} MiB" for kind, (number, size) in found["collectives"].items()
  )
  known = figures.seconds is not None
  note = "" if plan.fitted is None else f"out of memory; fits with `{fit.as_flags(plan.fitted[1])}`"
  return [
    *start,
    f"{plan.final.batch_size * chip.devices_per_chip / plan.final.devices:g}",
    f"{_short(found['memory']['peak'] / 2**30)}, {_short(cost.allocated(found['memory']) / 2**30)} of {chip.hbm:.2f}",
    _giga(figures.flops),
    f"{_giga(figures.bytes)}, {_giga(found['hbm_bytes'])}",
    moved or "none",
    _short(1e3 * figures.seconds) if known else "–",
    f"{_short(1e3 * figures.compute_seconds)}, {_short(1e3 * figures.memory_seconds)}",
    f"{figures.mfu:.1%}" if known else "–",
    f"{figures.images_per_second:,.0f}" if known else "–",
    _short(figures.hours) if known else f"≥ {_short(figures.least_hours)}",
    "; ".join(part for part in (note, figures.refused) if part),
  ]


def as_json(plan: Plan) -> dict[str, Any]:
  """A plan as nested dicts, numbers unrounded."""
  return {
    "config": plan.name,
    "topology": plan.first.topology,
    "out_of_memory": plan.first.found.get("out_of_memory"),
    "fits_with": None if plan.fitted is None else plan.fitted[1],
    "arithmetic": {
      "parameters": plan.final.parameters,
      "macs_per_image": plan.final.macs,
      "state_bytes": plan.final.state_bytes,
      "batch_size": plan.final.batch_size,
      "mesh": plan.final.mesh,
      "total_steps": plan.final.total_steps,
      "chip": dataclasses.asdict(plan.chip),
    },
    "compiler": plan.final.found,
    "estimate": plan.estimate and dataclasses.asdict(plan.estimate),
  }


def _first_lines(message):
  """What matters of the compiler's message: the text up to the listing of allocations."""
  lines = [line.strip() for line in message.splitlines() if line.strip()]
  return lines[:3]


def _indented(lines):
  return [f"  {line}" for line in lines]


def _gib(size):
  return f"{_short(size / 2**30)} GiB"


def _giga(number):
  return "–" if number is None else _short(number / 1e9)


def _ms(seconds):
  return f"{_short(1e3 * seconds)} ms"


def _short(number):
  """Three digits, or all before the point."""
  return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
