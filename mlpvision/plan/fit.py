"""Searches for changes to a config with which its step fits in memory, the cheapest first."""

from collections.abc import Callable, Mapping
import copy
from typing import Any

import ml_collections

from mlpvision.plan import program

ADVICE = """To make it fit, the cheapest first (--fit tries these):
  --config.mesh.fsdp=N           shards parameters and optimizer over N devices; same result, more communication
  --config.accumulation_steps=N  computes a part of the batch at a time; same result, smaller matrix products
  --config.model.remat=X         recomputes in the backward pass; same result. X = preactivations: all but matrix
                                 products; X = block: everything, a third more computation
  --config.data.batch_size=N     less work per step, but another recipe: the learning rate must change too"""

_REMAT = ("preactivations", "block")  # of remat.POLICIES; the second saves more
_REMAT_SAVES = 10  # roughly the largest factor by which remat reduces activations: 8 to 20 in our models
_LEAST_ROWS = 8  # images per device and accumulation step; with fewer, matrix products are too small


def search(
  config: ml_collections.ConfigDict,
  first: program.Program,
  compile_variant: Callable[[ml_collections.ConfigDict], program.Program],
) -> tuple[program.Program, dict[str, Any]] | None:
  """The first variant of a config that fits: (its program, {"mesh.fsdp": 16, ...}), or None. Prints each attempt.

  Args:
    config: the config that does not fit.
    first: its program.
    compile_variant: compiles a config.
  """
  for changes in variants(config, first):
    variant = copy.deepcopy(config)
    with variant.unlocked():
      variant.update_from_flattened_dict(changes)
    found = compile_variant(variant)
    print(f"  {as_flags(changes)}: {'out of memory' if found.is_out_of_memory else 'fits'}", flush=True)
    if not found.is_out_of_memory:
      return found, changes
  return None


def as_flags(changes: Mapping[str, Any]) -> str:
  """{"mesh.fsdp": 16} -> "--config.mesh.fsdp=16"."""
  return " ".join(f"--config.{field}={str(value).lower()}" for field, value in changes.items())


def variants(config: ml_collections.ConfigDict, first: program.Program) -> list[dict[str, Any]]:
  """The changes to try, as a list of {field: value}.

  The compiler's message contains the missing memory. Changes that cannot save as much are left out: sharding the state,
  and small numbers of accumulation steps.
  """
  parts = config.accumulation_steps
  over = first.devices // first.mesh["model"]  # the devices that share a batch
  fsdp = {"mesh.fsdp": over} | ({} if config.mesh.data == -1 else {"mesh.data": -1})
  weaker = _REMAT.index(config.model.remat) if config.model.remat in _REMAT else -1
  remats = [{"model.remat": policy} for policy in _REMAT[weaker + 1 :]]
  remat = remats[-1] if remats else {}
  steps = _accumulations(config.data.batch_size // over, parts)
  is_enough, least = first.mesh["fsdp"] < over, 0.0
  memory = program.needed_bytes(first.found["out_of_memory"])
  if memory:
    needed, available = memory
    is_enough &= needed - first.state_bytes * (1 - first.mesh["fsdp"] / over) <= available
    # Memory beyond the state is for the images of an accumulation step.
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
  """`current` doubled repeatedly, as long as every device has an even and sufficient number of images."""
  found, n = [], 2 * current
  while rows % (2 * n) == 0 and rows // n >= _LEAST_ROWS:
    found.append(n)
    n *= 2
  return found
