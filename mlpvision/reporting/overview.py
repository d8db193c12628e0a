"""What a run is made of, printed before its first step."""

import collections
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def parameters(params: Mapping[str, Any]) -> str:
  """A table of the top-level modules, equal neighbours in one row, and the total."""
  sizes = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in params.items()}
  groups = collections.defaultdict(list)
  for name, size in sizes.items():
    groups[name.rstrip("0123456789"), size].append(name)
  rows = [(names[0] if len(names) == 1 else f"{len(names)} x {names[0]}", len(names) * size)
          for (_, size), names in groups.items()]  # fmt: skip
  rows.append(("parameters", sum(sizes.values())))
  return "\n".join(f"  {name:28} {size:>13,}" for name, size in rows)


def mesh(mesh: jax.sharding.Mesh) -> str:
  """E.g. "8 x cpu in 1 process, mesh data=8"."""
  devices = mesh.devices.flatten()
  processes = jax.process_count()
  axes = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1) or "data=1"
  kind = devices[0].device_kind
  return f"{len(devices)} x {kind} in {processes} process{'es' if processes > 1 else ''}, mesh {axes}"


def compiled_step(compiled: jax.stages.Compiled, batch_size: int) -> str:
  """Memory per device and FLOPs per image as the compiler counts them, where it does."""
  lines = []
  memory = compiled.memory_analysis()
  if memory is not None:
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    peak += memory.output_size_in_bytes - memory.alias_size_in_bytes
    parts = (("state and batch", memory.argument_size_in_bytes), ("temporaries", memory.temp_size_in_bytes))
    details = ", ".join(f"{name} {_bytes(size)}" for name, size in parts)
    lines.append(f"memory per device: {_bytes(peak)} ({details})")
  cost = compiled.cost_analysis() or {}
  if cost.get("flops", 0) > 0:
    per_image = cost["flops"] * len(np.ravel(jax.devices())) / batch_size
    lines.append(f"compiled step: {per_image / 1e9:.3g} GFLOP per image, forward, backward and update")
  return "\n".join(lines)


def _bytes(size):
  for unit in ("B", "KiB", "MiB"):
    if size < 1024:
      return f"{size:.0f} {unit}"
    size /= 1024
  return f"{size:.2f} GiB"
