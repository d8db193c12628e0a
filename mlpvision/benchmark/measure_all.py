"""The ratios of docs/performance.md that this machine can measure, and which of them moved since another time."""

from collections.abc import Callable, Mapping, Sequence
import datetime
import importlib.metadata
import math
import os
import pathlib
import platform
import statistics
import types
from typing import Any

import jax
import ml_collections

from mlpvision.benchmark import measure_data, measure_step, measure_train
from mlpvision.errors import UserError

_LATENCY = 0.03  # seconds that a read from a bucket takes
_PACKAGES = ("jax", "jaxlib", "numpy", "torch")

Ratios = dict[str, list[float]]


def run(
  steps: Mapping[str, ml_collections.ConfigDict],
  loaders: Mapping[str, ml_collections.ConfigDict],
  trainings: Mapping[str, ml_collections.ConfigDict],
  *,
  batch_size: int,
  seconds: float,
  num_rounds: int,
  step_peers: types.ModuleType | None = None,
  loader_peers: types.ModuleType | None = None,
  processes: types.ModuleType | None = None,
) -> dict[str, Any]:
  """Measures one thing after the other, prints their tables and that of the ratios, and returns what a file keeps.

  Args:
    steps: {name: config whose step is measured}; it is changed.
    loaders: the same for loading; their datasets must be available.
    trainings: the same for steps fed by the loader.
    batch_size: images per step.
    seconds: duration of each turn of loaders and trainings.
    num_rounds: turns of each contender. The ratios of each round are kept.
    step_peers: benchmarks.peers, to measure PyTorch and plain flax; None: not.
    loader_peers: benchmarks.loaders, to measure other loaders; None: not.
    processes: benchmarks.contender, to run each loader in its own process; None: here.
  """
  ratios = {}

  def add(name: str, measured: Callable[[], Ratios]) -> None:
    print(f"\n{name}", flush=True)
    ratios.update({f"{name}, {what}": values for what, values in measured().items()})

  for name, config in steps.items():
    add(
      f"step of {name}",
      lambda config=config: of_step(measure_step.run(config, batch_size, num_rounds, peers=step_peers)),
    )
  for name, config in loaders.items():
    options = dict(latency=_LATENCY, processes=processes, peers=loader_peers)
    add(
      f"loader of {name}",
      lambda config=config, options=options: of_loader(measure_data.run(config, seconds, num_rounds, **options)),
    )
  for name, config in trainings.items():
    add(
      f"training {name}",
      lambda config=config: of_training(measure_train.run(config, batch_size, seconds, num_rounds)),
    )
  found = {
    "date": datetime.date.today().isoformat(),
    "machine": machine(),
    "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    "ratios": ratios,
  }
  print(f"\n{table(found)}")
  return found


def machine() -> str:
  """What the ratios depend on: the device, the processor and the number of its cores."""
  processor = platform.processor() or platform.machine()
  path = pathlib.Path("/proc/cpuinfo")
  if path.exists():
    names = [line.partition(":")[2].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    processor = names[0] if names else processor
  return f"{jax.devices()[0].device_kind}; {os.cpu_count()} CPU cores, {processor}"


def of_step(found: Mapping[str, Any]) -> Ratios:
  """Ratios from what `measure_step.run` returns; in CPU seconds on a CPU, in seconds elsewhere."""
  ours = found["ours"]
  column = 0 if ours["facts"]["platform"] == "cpu" else 1

  def times(contender, call):
    return [turn[column] for turn in contender["rounds"][call]]

  ratios = {}
  for call in ("forward", "train"):
    ratios[f"{call}: its products alone / ours"] = _divided(times(ours, f"{call} products"), times(ours, call))
    for name, peer in found.items():
      if peer is not ours and call in peer["rounds"]:
        ratios[f"{call}: {name} / ours"] = _divided(times(peer, call), times(ours, call))
  return ratios


def of_loader(found: Mapping[str, Any]) -> Ratios:
  """Ratios of images per CPU-second, and with slow reads of images/s, from what `measure_data.run` returns."""
  rates = {
    name: {unit: [turn["images"] / max(1e-9, turn[unit]) for turn in turns] for unit in ("cpu", "wall")}
    for name, turns in found["loaders"].items()
  }
  ours, ratios = rates.pop("ours"), {}
  for name, rate in rates.items():
    if name.startswith("ours, "):
      what = name.removeprefix("ours, ")
      ratios[f"images/s: {what} / without"] = _divided(rate["wall"], ours["wall"])
      ratios[f"images per CPU-second: {what} / without"] = _divided(rate["cpu"], ours["cpu"])
    else:
      ratios[f"images per CPU-second: ours / {name}"] = _divided(ours["cpu"], rate["cpu"])
  return ratios


def of_training(found: Mapping[str, Any]) -> Ratios:
  """The ratio of images/s from what `measure_train.run` returns."""
  loaded, kept = ([turn["images"] / turn["wall"] for turn in found[name]] for name in ("real", "synthetic"))
  return {"images/s: loaded / on the device": _divided(loaded, kept)}


def table(found: Mapping[str, Any]) -> str:
  """The ratios as text."""
  lines = [f"{found['machine']}, {found['date']}", f"{'ratio':80}{'median':>9}{'min':>9}{'max':>9}"]
  for name, values in found["ratios"].items():
    lines.append(f"{name:80}{statistics.median(values):9.3f}{min(values):9.3f}{max(values):9.3f}")
  return "\n".join(lines)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
  """What moved beyond noise, as text: the ratios of all rounds of one are beyond those of all rounds of the other."""
  lines = [f"compared with {old['date']}"]
  for what in ("machine", "versions"):
    if old[what] != new[what]:
      lines.append(f"another {what.removesuffix('s')}: {old[what]} then, {new[what]} now")
  moved, chance = 0, 0.0
  lines.append(f"{'ratio':80}{'then':>9}{'now':>9}{'change':>9}")
  for name in sorted(old["ratios"].keys() | new["ratios"].keys()):
    before, after = old["ratios"].get(name), new["ratios"].get(name)
    if not before or not after:
      lines.append(f"{name:80}{'measured then alone' if before else 'measured now alone':>27}")
      continue
    then, now = statistics.median(before), statistics.median(after)
    is_beyond = min(after) > max(before) or max(after) < min(before)
    moved += is_beyond
    chance += 2 / math.comb(len(before) + len(after), len(before))
    lines.append(f"{name:80}{then:9.3f}{now:9.3f}{now / then - 1:+9.1%}{'  moved' if is_beyond else ''}")
  lines.append(f"{moved} moved beyond noise; by chance alone, {chance:.1g} would")
  return "\n".join(lines)


def check(found: Any, path: str | os.PathLike) -> None:
  """Raises UserError unless `found` is what `run` has returned."""
  ratios = found.get("ratios") if isinstance(found, dict) else None
  good = isinstance(ratios, dict) and all(isinstance(found.get(key), str) for key in ("date", "machine"))
  if not good or not all(_is_series(values) for values in ratios.values()) or "versions" not in found:
    raise UserError(f"{path} is no file of `python -m mlpvision.benchmark all --json=FILE`")


def _is_series(values):
  return isinstance(values, list) and values and all(isinstance(v, float | int) and v > 0 for v in values)


def _divided(values: Sequence[float], others: Sequence[float]) -> list[float]:
  return [value / other for value, other in zip(values, others, strict=True)]


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None
