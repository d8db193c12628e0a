"""Text about a run's model, mesh and compiled step, printed before the first step."""

import collections
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mlpvision.models import cost


def parameters(params: Mapping[str, Any]) -> str:
  """A table of parameter counts: top-level modules, those of equal name and size in one row, and the total."""
  sizes = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in params.items()}
  groups = collections.defaultdict(list)
  for name, size in sizes.items():
    groups[name.rstrip("0123456789"), size].append(name)
  rows = [(names[0] if len(names) == 1 else f"{len(names)} x {names[0]}", len(names) * size)
          for (_, size), names in groups.items()]  # fmt: skip
  rows.append(("parameters", sum(sizes.values())))
  return "\n".join(f"  {name:28} {size:>13,}" for name, size in rows)


def mesh(mesh: jax.sharding.Mesh) -> str:
  """One line, such as "8 x cpu in 1 process, mesh data=8"."""
  devices = mesh.devices.flatten()
  processes = jax.process_count()
  axes = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1) or "data=1"
  kind = devices[0].device_kind
  return f"{len(devices)} x {kind} in {processes} process{'es' if processes > 1 else ''}, mesh {axes}"


def compiled_step(compiled: jax.stages.Compiled, batch_size: int) -> str:
  """Memory per device and FLOPs per image as the compiler reports them, if it does."""
  lines = []
  memory = cost.memory(compiled)
  if memory is not None:
    details = f"state and batch {_bytes(memory['argument'])}, temporaries {_bytes(memory['temp'])}"
    lines.append(f"memory per device: {_bytes(cost.allocated(memory))} ({details})")
  sums = compiled.cost_analysis() or {}
  if sums.get("flops", 0) > 0:
    per_image = sums["flops"] * len(np.ravel(jax.devices())) / batch_size
    lines.append(f"compiled step: {per_image / 1e9:.3g} GFLOP per image, forward, backward and update")
  return "\n".join(lines)


def kept_programs() -> str:
  """Where JAX keeps compiled programs; empty if it does not."""
  if not (directory := jax.config.jax_compilation_cache_dir) or not jax.config.jax_enable_compilation_cache:
    return ""
  return f"compiled programs are kept in {directory}; JAX_ENABLE_COMPILATION_CACHE=false keeps none"


def _bytes(size):
  for unit in ("B", "KiB", "MiB"):
    if size < 1024:
      return f"{size:.0f} {unit}"
    size /= 1024
  return f"{size:.2f} GiB"
