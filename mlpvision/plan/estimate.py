"""Arithmetic on what the compiler says: time, utilisation, and the hours of a recipe. Nothing here is measured."""

import dataclasses

from mlpvision.plan.chips import Chip
from mlpvision.plan.program import Program

# Loops whose number of passes depends on data count once: here those that draw the random numbers of mixup, which need
# one pass or two. With more than this share of a step in such loops, there is no estimate of time.
_MAX_UNKNOWN = 0.05


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Of one step; None where there is no honest figure, and `refused` says why.

  Attributes:
    model_flops: per device: matrix products of forward and backward pass, recomputation not counted.
    flops, bytes: per device: what XLA's sums say, loops counted as often as they run; None where it has none.
    compute_seconds, memory_seconds: these flops (without them, the model's) at the chip's peak, the bytes of main
      memory at its bandwidth.
    seconds: cycles over clock.
    images_per_second: of the whole slice.
    mfu: model_flops over what the device could do in `seconds`.
    hours: of all steps of the recipe.
    least_hours: the same from the longer of compute_seconds and memory_seconds.
    refused: why there is no `seconds`, or "".
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


def estimate(program: Program, chip: Chip) -> Estimate:
  """An `Estimate`.

  Args:
    program: program.Program that fits.
    chip: chips.Chip.
  """
  found, total_steps = program.found, program.total_steps
  # Two for each multiply-accumulate; a backward pass takes twice as many as a forward pass.
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
    return f"the clock of {chip.name} is not published, so cycles give no time"
  unknown = found["unknown_cycles"]
  if unknown > _MAX_UNKNOWN * found["cycles"]:
    return f"{unknown:,} of {found['cycles']:,} cycles are in loops whose number of passes cannot be read from the HLO"
  return ""
