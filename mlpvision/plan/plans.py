"""From a config and a slice to a plan: compile, make it fit where asked to, and estimate."""

import concurrent.futures
import dataclasses
import multiprocessing
import os
from typing import Any

import ml_collections

from mlpvision.errors import UserError
from mlpvision.plan import chips, fit, images, program
from mlpvision.plan.chips import Chip
from mlpvision.plan.estimate import Estimate, estimate
from mlpvision.plan.program import Program


@dataclasses.dataclass(frozen=True)
class Plan:
  """One config on one slice.

  Attributes:
    name: the config's.
    chip: chips.Chip.
    first: what was compiled first, with the config as it is.
    fitted: (Program, {field: value}) of the change that made it fit, or None.
    estimate: of the program that fits, or None.
  """

  name: str
  chip: Chip
  first: Program
  fitted: tuple[Program, dict] | None
  estimate: Estimate | None

  @property
  def final(self) -> Program:
    """The program that the figures are of."""
    return self.first if self.fitted is None else self.fitted[0]


def make(name: str, config: ml_collections.ConfigDict, topology: str, **options: Any) -> Plan:
  """`plan_here` in a process of its own, which gives the compiler's gigabytes back, and may die of want of them."""
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
    try:
      return process.submit(plan_here, name, config, topology, **options).result()
    except concurrent.futures.process.BrokenProcessPool as error:
      raise UserError("the compiler's process died: perhaps this machine's memory is too small for it") from error


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
    config: as configs/default.py describes it.
    topology: "v5e:4x4".
    sizes: (training images, classes); None where the config's dataset tells.
    with_fit: whether to look for changes with which a step fits that is out of memory. It prints its attempts.
    store_path: of a `program.Store`, or None.

  Raises:
    UserError: no such slice, no libtpu, an unknown dataset, or a config that does not work.
  """
  chip, _ = chips.parse(topology)
  num_images, num_classes = images.count(config.data, images=sizes[0], classes=sizes[1])
  store = program.Store(store_path)

  def compile_variant(variant):
    return program.compile_step(variant, topology, num_images=num_images, num_classes=num_classes, store=store)

  first = final = compile_variant(config)
  fitted, found = None, None
  if first.is_out_of_memory and with_fit:
    print("out of memory; trying what may help, the cheapest first:", flush=True)
    fitted = fit.search(config, first, compile_variant, lambda line: print(line, flush=True))
    final = first if fitted is None else fitted[0]
  if not final.is_out_of_memory:
    found = estimate(final, chip)
  return Plan(name, chip, first, fitted, found)
