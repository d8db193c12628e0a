"""Compiles a config's train step for devices that are not attached, and stores the compiler's figures."""

from collections.abc import Mapping
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import re
import tempfile
from typing import Any

import jax
import ml_collections

from mlpvision import tasks
from mlpvision.errors import UserError
from mlpvision.models import cost
from mlpvision.plan import chips, counts, gpus, hlo
from mlpvision.training import setup

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_KEPT_KERNELS = 200
_PACKAGES = {"TPU": ("jax", "libtpu"), "GPU": ("jax", "jax-cuda13-plugin")}


class Store:
  """The compiler's figures for programs, in a JSON file; without a path, only in memory."""

  def __init__(self, path: str | os.PathLike | None = None) -> None:
    self._path = path and pathlib.Path(path)
    self.plans = []  # `plans.Plan`s as dicts, for the file's readers
    self.programs = {}
    if self._path and self._path.exists():
      try:
        self.programs = json.loads(self._path.read_text())["programs"]
      except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} exists and was not written by this command: choose another --json") from error

  def put(self, key: str, found: Mapping[str, Any]) -> None:
    """Adds a program and writes the file."""
    self.programs[key] = found
    self.write()

  def write(self) -> None:
    """Writes the file atomically."""
    if not self._path:
      return
    text = json.dumps({"plans": self.plans, "programs": self.programs}, indent=1)
    with tempfile.NamedTemporaryFile("w", dir=self._path.absolute().parent, delete=False) as file:
      file.write(f"{text}\n")
    os.replace(file.name, self._path)


@dataclasses.dataclass(frozen=True)
class Program:
  """A train step and the compiler's figures.

  Attributes:
    topology: such as "v5e:4x4".
    mesh: {axis: size}.
    batch_size: images per step, over all devices.
    total_steps: of the recipe.
    parameters, macs: of the model; multiply-accumulates of one image, forward.
    state_bytes: parameters, EMA and optimizer state on one device.
    found: {"versions"} and either {"out_of_memory": message} or "memory" {kind: bytes}, "flops" and "bytes" (XLA's
      sums, which count each loop once; None for a GPU) and the fields of counts.Counts.
  """

  topology: str
  mesh: dict[str, int]
  batch_size: int
  total_steps: int
  parameters: int
  macs: int
  state_bytes: int
  found: dict

  @property
  def is_out_of_memory(self) -> bool:
    return "out_of_memory" in self.found

  @property
  def devices(self) -> int:
    return math.prod(self.mesh.values())


def compile_step(
  config: ml_collections.ConfigDict, topology: str, *, num_images: int, num_classes: int, store: Store
) -> Program:
  """Compiles a config's train step for a slice, unless `store` has the same program by the same compiler.

  Args:
    config: see configs/default.py.
    topology: such as "v5e:4x4".
    num_images, num_classes: of the training split.
    store: where figures are looked up and added.

  Raises:
    UserError: no such slice, no libtpu, a config that does not work on it, or the compiler fails.
  """
  parts = setup.make_parts(config, num_images=num_images, num_classes=num_classes, devices=chips.devices(topology))
  lowered = setup.lower_step(parts)
  chip, _ = chips.parse(topology)
  versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES[chip.kind]]
  options = setup.compiler_options(parts.mesh) | (gpus.COMPILER_OPTIONS if chip.kind == "GPU" else {})
  settings = [f"{name}={value}" for name, value in options.items()]
  key = hashlib.sha256("\n".join([topology, *versions, *settings, lowered.as_text()]).encode()).hexdigest()[:32]
  if key not in store.programs:
    store.put(key, {"versions": versions, **_compile(lowered, options, chip)})
  leaves = jax.tree.leaves(parts.abstract)
  return Program(
    topology,
    mesh=dict(parts.mesh.shape),
    batch_size=config.data.batch_size,
    total_steps=parts.total_steps,
    **cost.count(parts.model, tasks.batch_specs(config)[0]["image"][0][:2]),
    state_bytes=sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in leaves),
    found=store.programs[key],
  )


def needed_bytes(message: str) -> tuple[float, float] | None:
  """(bytes needed, bytes available) from the compiler's out-of-memory message, or None."""
  amount = r"(\d+(?:\.\d+)?)([KMGT]?)"
  match = re.search(rf"Used {amount} of {amount}", message) or re.search(
    rf"\({amount}\) exceeds available \w+ \({amount}\)", message
  )
  if not match:
    return None
  return tuple(float(number) * 2 ** _UNITS[unit] for number, unit in (match.group(1, 2), match.group(3, 4)))


def _compile(lowered, options, chip):
  try:
    compiled = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise UserError(f"the compiler failed: {str(error)[:2000]}") from error
    return {"out_of_memory": str(error)[:4000]}
  sums, memory = compiled.cost_analysis() or {}, cost.memory(compiled)
  if chip.kind == "GPU" and cost.allocated(memory) > chip.hbm * 2**30:  # this compiler does not check it
    return {
      "out_of_memory": f"({cost.allocated(memory) / 2**30:.2f}G) exceeds available memory ({chip.hbm:.2f}G), which is"
      f" three quarters of the {chip.name}'s, as JAX allocates by default; computed from the compiler's figures"
    }
  found = counts.count(hlo.parse(compiled.as_text()))
  return {
    "memory": memory,
    "flops": sums.get("flops"),
    "bytes": sums.get("bytes accessed"),
    **dataclasses.asdict(dataclasses.replace(found, kernels=found.kernels[:_KEPT_KERNELS])),
  }
