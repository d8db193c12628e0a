"""What to change in a config whose step does not fit, tried in the order of what it costs."""

from collections.abc import Callable, Mapping
import copy
from typing import Any

import ml_collections

from mlpvision.plan import program

ADVICE = """To make it fit, in the order of what it costs (--fit tries them):
  --config.mesh.fsdp=N           parameters and optimizer over N devices; the same result, more communication
  --config.accumulation_steps=N  a part of the batch at a time; the same result, smaller matrix products
  --config.model.remat=X         computed again in the backward pass, the same result: preactivations, all but matrix
                                 products; block, everything, a third more computation
  --config.data.batch_size=N     less work a step; another recipe: the learning rate goes with it"""

_REMAT = ("preactivations", "block")  # of forms.REMAT, by what they save
_REMAT_SAVES = 10  # at most about so many times; 8 to 20 by the activations of our models
_LEAST_ROWS = 8  # images of a device in a part of a step; with less, matrix products are too small to be worth it


def search(
  config: ml_collections.ConfigDict,
  first: program.Program,
  compile_variant: Callable[[ml_collections.ConfigDict], program.Program],
  say: Callable[[str], object],
) -> tuple[program.Program, dict[str, Any]] | None:
  """The first variant of a config that fits.

  Args:
    config: does not fit.
    first: its program.Program.
    compile_variant: config -> program.Program.
    say: called with a line for each attempt.

  Returns:
    (program.Program, {"mesh.fsdp": 16, ...}), or None where nothing helps.
  """
  for changes in variants(config, first):
    variant = copy.deepcopy(config)
    with variant.unlocked():
      variant.update_from_flattened_dict(changes)
    found = compile_variant(variant)
    say(f"  {as_flags(changes)}: {'out of memory' if found.is_out_of_memory else 'fits'}")
    if not found.is_out_of_memory:
      return found, changes
  return None


def as_flags(changes: Mapping[str, Any]) -> str:
  """{"mesh.fsdp": 16} -> "--config.mesh.fsdp=16"."""
  return " ".join(f"--config.{field}={str(value).lower()}" for field, value in changes.items())


def variants(config: ml_collections.ConfigDict, first: program.Program) -> list[dict[str, Any]]:
  """The changes to try, as a list of {field: value}.

  The compiler says how much memory is missing. Sharding the state is left out where it cannot save so much, and so are
  numbers of parts that are too small.
  """
  parts, over = config.accumulation_steps, first.devices // first.mesh["model"]  # over so many, the batch is split
  fsdp = {"mesh.fsdp": over} | ({} if config.mesh.data == -1 else {"mesh.data": -1})
  weaker = _REMAT.index(config.model.remat) if config.model.remat in _REMAT else -1
  remats = [{"model.remat": policy} for policy in _REMAT[weaker + 1 :]]
  remat = remats[-1] if remats else {}
  steps = _accumulations(config.data.batch_size // over, parts)
  is_enough, least = first.mesh["fsdp"] < over, 0.0
  says = program.needed_bytes(first.found["out_of_memory"])
  if says:
    needed, available = says
    is_enough &= needed - first.state_bytes * (1 - first.mesh["fsdp"] / over) <= available
    # Beyond the state, memory is for the images of a part.
    least = parts * max(needed - first.state_bytes, 0) / max(available - first.state_bytes, 1)

  tries = [fsdp] if is_enough else []
  tries += [{"accumulation_steps": n} for n in steps if n >= 0.7 * least]
  tries += remats
  if remats:
    tries += [{**remat, "accumulation_steps": n} for n in steps if n >= least / _REMAT_SAVES]
  if first.mesh["fsdp"] < over:
    tries.append({**fsdp, **remat, **({"accumulation_steps": steps[-1]} if steps else {})})
  batch_size = config.data.batch_size
  while (batch_size // 2) % (2 * over * parts) == 0:
    batch_size //= 2
    tries.append({**fsdp, **remat, "data.batch_size": batch_size})
  return [changes for i, changes in enumerate(tries) if changes not in tries[:i]]


def _accumulations(rows, current):
  """Doubled numbers of parts that leave every device an even number of images, and enough of them."""
  found, n = [], 2 * current
  while rows % (2 * n) == 0 and rows // n >= _LEAST_ROWS:
    found.append(n)
    n *= 2
  return found
