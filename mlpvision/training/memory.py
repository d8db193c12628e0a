"""Refuses a step that cannot fit in memory, before it takes the machine down with it.

What a step takes is the compiler's figure, of which the state is there already. What is free is read after compilation,
so that what the compiler keeps counts; what it takes while it works is not known beforehand.
"""

from collections.abc import Iterator, Sequence
import contextlib
import math
import os
import pathlib
import re
from typing import Any

import jax
from jax.experimental import multihost_utils
import ml_collections
import numpy as np

from mlpvision import sharding
from mlpvision.errors import UserError
from mlpvision.models import cost
from mlpvision.training.setup import Parts

# Of a step's temporaries: in a heap that never shrinks (`commands.keep_freed_memory`), the block of one step is broken
# up when the next one asks for it.
_TIMES_ON_HOST = 2
_USABLE = 0.9  # of what is free: the host loads images, and evaluates
# Roughly how much smaller activations are at least if blocks are recomputed: 8 to 20 times in our models (plan/fit.py).
_REMAT_SAVES = 4
_ADVICE = """  --config.accumulation_steps=N   computes a part of the batch at a time; same result
  --config.model.remat=block      recomputes blocks in the backward pass; same result, a third more computation
  --config.data.batch_size=N      another recipe: the learning rate must change too"""


def check_state(parts: Parts) -> None:
  """Raises UserError if parameters, optimizer state and gradients alone do not fit. Call it before they are made."""
  state, params = _bytes(parts.abstract), _bytes(parts.abstract.params)
  free = _free(parts.mesh)
  if free is not None and state + params > free:
    raise UserError(
      f"the parameters, their gradients and the optimizer's state take {size(state + params)} on each device, and"
      f" {size(free)} are free. Choose a smaller model, or shard them with --config.mesh.fsdp over several devices"
    )


def check_step(parts: Parts, compiled: jax.stages.Compiled) -> None:
  """Raises UserError, with flags that make it fit, if a compiled step has too little memory. The state must exist."""
  memory, free = cost.memory(compiled), _free(parts.mesh)
  if memory is None or free is None:
    return
  state, params = _bytes(parts.abstract), _bytes(parts.abstract.params)
  on_host = parts.mesh.devices.flat[0].platform == "cpu"
  temporaries = (_TIMES_ON_HOST if on_host else 1) * memory["temp"]
  needed = cost.allocated(memory) - state - memory["temp"] + temporaries
  if needed > free:
    sizes = dict(needed=needed, temporaries=temporaries, batch=memory["argument"] - state, params=params, free=free)
    recomputes = not on_host
    flags = advice(parts.config, shards=sharding.batch_parts(parts.mesh), **sizes, recomputes=recomputes)
    raise UserError(
      f"a step takes {size(needed)} of memory beside the state on each device, and {size(free)} are free. {flags}"
    )


def advice(
  config: ml_collections.ConfigDict,
  *,
  shards: int,
  needed: int,
  temporaries: int,
  batch: int,
  params: int,
  free: int,
  recomputes: bool = True,
) -> str:
  """The flags with which a step fits, estimated: its temporaries, but for gradients, are in proportion to its images.

  shards: of the batch; needed: bytes of a step beside the state on a device; temporaries, batch: those of them that are
    temporary or the batch; params: the size of the parameters; free: bytes; recomputes: whether model.remat saves
    memory, which on CPU it does not.
  """
  gradients = min(params, temporaries)
  of_images = temporaries - gradients
  if not of_images:
    return "Choose a smaller model, or more devices with --config.mesh.fsdp"
  room = _USABLE * free - (needed - of_images)
  lines = []
  batch_size, steps = config.data.batch_size, config.accumulation_steps
  if room > params:  # which accumulation adds up in
    least = steps * of_images / (room - params)
    found = next((n for n in range(steps, batch_size + 1) if n >= least and batch_size % (n * shards) == 0), None)
    lines += [(f"accumulation_steps={found}", "a part of the batch at a time; same result")] if found else []
  if recomputes and config.model.remat != "block" and room > of_images / _REMAT_SAVES:
    lines.append(("model.remat=block", "recomputes blocks in the backward pass; same result, a third more computation"))
  if room + batch > 0:
    unit = shards * steps * (2 if config.augment.mixup or config.augment.cutmix else 1)
    largest = int(batch_size * (room + batch) / (of_images + batch)) // unit * unit
    halves = (batch_size >> i for i in range(1, batch_size.bit_length()))
    smaller = next((n for n in halves if n <= largest and n % unit == 0), largest)
    lines += [(f"data.batch_size={smaller}", "another recipe: the learning rate must change too")] if smaller else []
  if not lines:
    return "Not even one image at a time fits: choose a smaller model or image size, or more devices"
  width = max(len(flag) for flag, _ in lines)
  listed = "\n".join(f"  --config.{flag:{width}}   {what}" for flag, what in lines)
  return f"By estimate it fits with one of\n{listed}"


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
  """Raises UserError where a compiler or a device says that it has too little memory."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise UserError(f"out of memory: {str(error).splitlines()[0][:500]}\nTo need less:\n{_ADVICE}") from error


def size(count: float) -> str:
  """Bytes as text."""
  return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _bytes(tree: Any) -> int:
  """Of a tree of arrays or shapes, on one device."""
  return sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))


def _free(mesh):
  """Bytes for each device of the mesh, in the process that has least; None if nobody knows."""
  devices = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
  if devices[0].platform == "cpu":
    found = host_bytes()
    found = None if found is None else found // len(devices)
  else:
    stats = [device.memory_stats() or {} for device in devices]
    known = [x["bytes_limit"] - x["bytes_in_use"] for x in stats if {"bytes_limit", "bytes_in_use"} <= x.keys()]
    found = min(known, default=None)
  if jax.process_count() > 1:  # all must come to the same conclusion
    found = np.float64(np.inf if found is None else found)
    found = float(np.min(multihost_utils.process_allgather(found)))
    return None if math.isinf(found) else int(found)
  return found


def host_bytes(root: str | os.PathLike = "/") -> int | None:
  """What is free on this machine, or left to this process's container; where that is unknown, all that it has.

  root: of /proc and /sys. None if nobody knows.
  """
  root = pathlib.Path(root)
  found = [*_of_machine(root / "proc/meminfo"), *_of_containers(root)]
  if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # macOS
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
  return min(found, default=None)


def _of_machine(meminfo) -> Sequence[int]:
  match = re.search(r"MemAvailable:\s+(\d+) kB", _text(meminfo))
  return [int(match[1]) * 1024] if match else []


def _of_containers(root):
  """What is left of the limits of the control groups that this process is in, of both versions."""
  for line in _text(root / "proc/self/cgroup").splitlines():
    _, kinds, path = (line.split(":", 2) + ["", ""])[:3]
    if kinds not in ("", "memory"):
      continue
    base = root / "sys/fs/cgroup" / kinds
    limit, usage = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
    group = base / path.lstrip("/")
    for directory in (group, *group.parents):  # in a container, some of the path may not be there
      limits, used = _text(directory / limit).strip(), _text(directory / usage).strip()
      if limits.isdigit() and used.isdigit():
        # Cached files are given back when memory is needed.
        cached = re.search(r"^(?:total_)?inactive_file (\d+)", _text(directory / "memory.stat"), re.MULTILINE)
        yield max(0, int(limits) - int(used) + (int(cached[1]) if cached else 0))
      if directory == base:
        break


def _text(path):
  try:
    return path.read_text()
  except OSError:
    return ""
