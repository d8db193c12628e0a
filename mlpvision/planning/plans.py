"""From a config and a slice to a plan: compile, make it fit where asked to, and estimate."""

import dataclasses

from mlpvision.models import cost
from mlpvision.planning import chips, fit, images, program
from mlpvision.planning.chips import Chip
from mlpvision.planning.estimate import Estimate, estimate
from mlpvision.planning.program import Program


@dataclasses.dataclass(frozen=True)
class Plan:
  """One config on one slice.

  Attributes:
    name: the config's.
    chip: chips.Chip.
    parameters, macs: of the model; multiply-accumulates of one image, forward.
    first: what was compiled first, with the config as it is.
    fitted: (Program, {field: value}) of the change that made it fit, or None.
    estimate: of the program that fits, or None.
  """

  name: str
  chip: Chip
  parameters: int
  macs: int
  first: Program
  fitted: tuple[Program, dict] | None
  estimate: Estimate | None

  @property
  def final(self):
    """The program that the figures are of."""
    return self.first if self.fitted is None else self.fitted[0]


def make(name, config, topology, *, sizes=(None, None), with_fit=False, store, say=print):
  """The `Plan` of a config on a slice; takes minutes.

  Args:
    name: of the config, for the report.
    config: as configs/default.py describes it.
    topology: "v5e:4x4".
    sizes: (training images, classes); None where the config's dataset tells.
    with_fit: whether to look for changes with which a step fits that is out of memory.
    store: `program.Store`.
    say: called with a line for each attempt of with_fit.

  Raises:
    UserError: no such slice, no libtpu, an unknown dataset, or a config that does not work.
  """
  chip, _ = chips.parse(topology)
  num_images, num_classes = images.count(config.data, images=sizes[0], classes=sizes[1])

  def compile_variant(variant):
    return program.compile_step(variant, topology, num_images=num_images, num_classes=num_classes, store=store)

  first = final = compile_variant(config)
  fitted, found = None, None
  if first.is_out_of_memory and with_fit:
    say("out of memory; trying what may help, the cheapest first:")
    fitted = fit.search(config, first, compile_variant, say)
    final = first if fitted is None else fitted[0]
  counted = cost.count(first.parts.model, config.data.image_size)
  if not final.is_out_of_memory:
    found = estimate(
      final.found,
      chip,
      num_devices=final.parts.mesh.devices.size,
      macs=counted["macs"],
      batch_size=final.parts.config.data.batch_size,
      total_steps=final.parts.total_steps,
    )
  return Plan(name, chip, counted["parameters"], counted["macs"], first, fitted, found)
