"""A plan as text and as a row of a table. Every line of the text gives its source; nothing is measured."""

from collections.abc import Sequence

from mlpvision.models import cost
from mlpvision.plan import counts, fit
from mlpvision.plan.plans import Plan

LEGEND = """Nothing was measured. Each line ends with its source:
  arithmetic  computed from the config, the model and the chip's published figures
  compiler    a figure of XLA's compiler for the compiled step
  estimate    computed from the compiler's figures: cycles / clock, without waiting for collectives and input; XLA's
              sums, which count each loop once, times the passes of the loops"""

_COLUMNS = (
  "config", "slice", "images a chip", "HBM, GiB: peak, allocated", "GFLOP", "GB: all, HBM", "collectives", "step, ms",
  "roofline, ms: compute, HBM", "MFU", "images/s", "hours", "note",
)  # fmt: skip


def text(plan: Plan, num_kernels: int = 0) -> str:
  """The full plan, and the num_kernels most expensive kernels."""
  final, chip = plan.final, plan.chip
  noun = "GPU" if chip.kind == "GPU" else "chip"
  each = "device (half a chip)" if chip.devices_per_chip == 2 else noun
  axes = " ".join(f"{name}={size}" for name, size in final.mesh.items() if size > 1) or "one device"
  lines = [
    f"{plan.name} on {plan.first.topology}: {final.devices // chip.devices_per_chip} {noun}s, mesh {axes},"
    f" {final.batch_size:,} images a step; all figures per {each}"
  ]
  if plan.first.is_out_of_memory:
    lines += ["out of memory:", *(f"  {line}" for line in _message(plan.first))]
    if plan.fitted is None:
      return "\n".join([*lines, fit.ADVICE])
    lines.append(f"With {fit.as_flags(plan.fitted[1])} it fits:")
  lines += [f"  {label:22}{value:62}  {source}" for label, value, source in _figures(plan)]
  if num_kernels and final.found["cycles"]:
    lines.append(f"  {f'the {num_kernels} most expensive kernels, all blocks and passes together:':84}  compiler")
    for cycles, times, opcode, where in final.found["kernels"][:num_kernels]:
      share = cycles / final.found["cycles"]
      lines.append(f"  {cycles:>12,} cycles {share:6.1%}  {times:>4} x {opcode:12} {where}")
  return "\n".join(lines)


def _figures(plan):
  """Yields (label, value, source)."""
  final, found, chip, figures = plan.final, plan.final.found, plan.chip, plan.estimate
  memory = found["memory"]
  yield "parameters", f"{final.parameters:,} in the whole model", "arithmetic"
  yield "state", f"{_gib(final.state_bytes)}: parameters, EMA, optimizer", "arithmetic"
  yield "arguments", f"{_gib(memory['argument'])}: state and batch", "compiler"
  yield "temporaries", _gib(memory["temp"]), "compiler"
  yield "peak of HBM", _gib(memory["peak"]), "compiler"
  yield "allocated HBM", f"{_gib(cost.allocated(memory))} of {chip.hbm:.2f} GiB", "compiler"
  if figures.flops is not None:
    sums = "compiler" if figures.flops == found["flops"] else "estimate"
    yield "work", f"{_short(figures.flops / 1e9)} GFLOP", sums
    yield "bytes accessed", f"{_short(figures.bytes / 1e9)} GB, including on-chip memory", sums
  yield "HBM traffic", f"{_short(found['hbm_bytes'] / 1e9)} GB, counted in the compiled step", "arithmetic"
  for kind, (number, size) in found["collectives"].items():
    yield kind, f"{number} with {_short(size / 2**20)} MiB", "compiler"
  if not found["collectives"]:
    yield "collectives", "none", "compiler"
  if found["cycles"]:
    for loop in found["loops"]:
      if (loop["trips"] or 0) > 1:
        where = counts.shorten(loop["op_name"])[-30:]
        yield "loop", f"{loop['trips']} x {loop['cycles']:,} cycles: {where}", "compiler"
    yield "cycles", f"{found['cycles']:,}", "compiler"
  yield "model's own work", f"{_short(figures.model_flops / 1e9)} GFLOP, no recomputation", "arithmetic"
  compute, hbm = _ms(figures.compute_seconds), _ms(figures.memory_seconds)
  yield "at least", f"{compute} at {chip.tflops:g} TFLOP/s, {hbm} at {chip.bandwidth:g} GB/s", "arithmetic"
  if figures.refused:
    yield "step", f"no estimate: {figures.refused}", "refused"
    yield "recipe", f"at least {_short(figures.least_hours)} hours for {final.total_steps:,} steps", "arithmetic"
    return
  yield "step", f"{_ms(figures.seconds)} at {chip.clock:g} GHz", "estimate"
  yield "MFU", f"{figures.mfu:.1%}", "estimate"
  each = figures.images_per_second / final.devices * chip.devices_per_chip
  yield "images/s", f"{figures.images_per_second:,.0f}, {each:,.0f} a chip", "estimate"
  steps = f"{final.total_steps:,} steps of {final.batch_size:,} images"
  yield "recipe", f"{_short(figures.hours)} hours for {steps}", "estimate"


def table(plans: Sequence[Plan]) -> str:
  """A Markdown table with a row per plan, followed by the compiler's messages for steps that are out of memory."""
  rows = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_row, plans)]
  lines = [f"| {' | '.join(row)} |" for row in rows]
  short = [plan for plan in plans if plan.first.is_out_of_memory]
  if short:
    lines += ["", "The compiler's messages for unchanged configs that are out of memory:", ""]
    lines += [f"- {plan.name} on {plan.first.topology}: `{''.join(_message(plan.first)[:1])}`" for plan in short]
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


def _message(program):
  """The first lines of an out-of-memory message, without its list of allocations."""
  lines = (line.strip() for line in program.found["out_of_memory"].splitlines())
  return [line for line in lines if line][:3]


def _gib(size):
  return f"{_short(size / 2**30)} GiB"


def _giga(number):
  return "–" if number is None else _short(number / 1e9)


def _ms(seconds):
  return f"{_short(1e3 * seconds)} ms"


def _short(number):
  """Three significant digits; integers from 100 on."""
  return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
