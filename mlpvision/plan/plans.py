"""From a config and a slice to a plan: compiles the step, makes it fit if asked to, and estimates its time.

Nothing is measured: estimates are arithmetic on the compiler's figures.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import time
from typing import Any

import ml_collections

from mlpvision.errors import UserError
from mlpvision.plan import chips, fit, images, program
from mlpvision.plan.chips import Chip
from mlpvision.plan.program import Program

# The largest share of cycles in loops with an unknown number of passes. Such loops count as one pass; those that draw
# mixup's random numbers need one or two. Beyond this share, no time is estimated.
_MAX_UNKNOWN = 0.05


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Figures of one step; None where nothing can be said.

  Attributes:
    model_flops: per device: the matrix products of forward and backward pass, without recomputation.
    flops, bytes: per device: XLA's sums, corrected for loops.
    compute_seconds, memory_seconds: `flops` (else `model_flops`) at the chip's peak; HBM traffic at its bandwidth.
    seconds: the compiler's cycles divided by the clock.
    images_per_second: of the whole slice.
    mfu: model_flops / (seconds x the chip's peak).
    hours, least_hours: for the recipe's steps, from `seconds`; from the larger of compute_seconds and memory_seconds.
    refused: why `seconds` is None, else "".
  """

  model_flops: float
  flops: float | None
  bytes: float | None
  compute_seconds: float
  memory_seconds: float
  seconds: float | None
  images_per_second: float | None
  mfu: float | None
  hours: float | None
  least_hours: float
  refused: str


@dataclasses.dataclass(frozen=True)
class Plan:
  """One config on one slice.

  Attributes:
    name: of the config.
    chip: the kind of device.
    first: the step of the unchanged config.
    fitted: (the step that fits, {field: value} of the changes that make it fit), or None.
    estimate: for the step that fits, or None.
  """

  name: str
  chip: Chip
  first: Program
  fitted: tuple[Program, dict] | None
  estimate: Estimate | None

  @property
  def final(self) -> Program:
    """The step that the figures describe."""
    return self.first if self.fitted is None else self.fitted[0]


def make(name: str, config: ml_collections.ConfigDict, topology: str, **options: Any) -> Plan:
  """`plan_here` in a new process, which returns the compiler's gigabytes of memory when it ends."""
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
    try:
      return wait(process.submit(plan_here, name, config, topology, **options))
    except concurrent.futures.process.BrokenProcessPool as error:
      raise UserError("the compiler's process died: perhaps this machine has too little memory") from error


def wait(future: concurrent.futures.Future, every: float = 120) -> Any:
  """A future's result; says every so many seconds that the compiler is still at work."""
  start = time.monotonic()
  while not concurrent.futures.wait([future], timeout=every).done:
    print(f"  still compiling after {(time.monotonic() - start) / 60:.0f} min ...", flush=True)
  return future.result()


def plan_here(
  name: str,
  config: ml_collections.ConfigDict,
  topology: str,
  *,
  sizes: tuple[int | None, int | None] = (None, None),
  with_fit: bool = False,
  store_path: str | os.PathLike | None = None,
) -> Plan:
  """The `Plan` of a config on a slice; takes minutes.

  Args:
    name: of the config, for the report.
    config: see configs/default.py.
    topology: such as "v5e:4x4".
    sizes: (training images, classes); None: of the config's dataset.
    with_fit: if the step is out of memory, search for changes with which it fits, printing each attempt.
    store_path: of a `program.Store`, or None.

  Raises:
    UserError: no such slice, no libtpu, an unknown dataset, or an invalid config.
  """
  chip, _ = chips.parse(topology)
  num_images, num_classes = images.count(config, images=sizes[0], classes=sizes[1])
  store = program.Store(store_path)

  def compile_variant(variant):
    return program.compile_step(variant, topology, num_images=num_images, num_classes=num_classes, store=store)

  first, fitted = compile_variant(config), None
  if first.is_out_of_memory and with_fit:
    print("out of memory; trying changes, the cheapest first:", flush=True)
    fitted = fit.search(config, first, compile_variant)
  final = fitted[0] if fitted else first
  return Plan(name, chip, first, fitted, None if final.is_out_of_memory else estimate(final, chip))


def estimate(program: Program, chip: Chip) -> Estimate:
  """The `Estimate` for a step that fits."""
  found, total_steps = program.found, program.total_steps
  # Two per multiply-accumulate; the backward pass has twice as many as the forward pass.
  model_flops = 6 * program.macs * program.batch_size / program.devices
  flops, num_bytes = (found[kind] and found[kind] * found[f"{kind}_factor"] for kind in ("flops", "bytes"))
  compute, memory = (flops or model_flops) / (chip.tflops * 1e12), found["hbm_bytes"] / (chip.bandwidth * 1e9)
  refused = _why_refused(found, chip)
  seconds = None if refused else found["cycles"] / (chip.clock * 1e9)
  return Estimate(
    model_flops=model_flops,
    flops=flops,
    bytes=num_bytes,
    compute_seconds=compute,
    memory_seconds=memory,
    seconds=seconds,
    images_per_second=seconds and program.batch_size / seconds,
    mfu=seconds and model_flops / (seconds * chip.tflops * 1e12),
    hours=seconds and total_steps * seconds / 3600,
    least_hours=total_steps * max(compute, memory) / 3600,
    refused=refused,
  )


def _why_refused(found, chip):
  if chip.kind == "GPU":
    return "XLA estimates no cycles for GPUs"
  if chip.clock is None:
    return f"the clock of {chip.name} is not published, so cycles cannot be converted to time"
  unknown = found["unknown_cycles"]
  if unknown > _MAX_UNKNOWN * found["cycles"]:
    return f"{unknown:,} of {found['cycles']:,} cycles are in loops with an unknown number of passes"
  return ""
