"""Training end to end: the step fed by the loader, beside the same step on one batch that is on the device already."""

from collections.abc import Sequence
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import time

import jax
import ml_collections

from mlpvision import sharding
from mlpvision.benchmark import own_step, usage
from mlpvision.data import datasets, loader


@dataclasses.dataclass
class Turn:
  """Some steps in a row."""

  images: int
  wall: float
  waited: float  # seconds of these without a batch
  cpu: float  # from a loader at rest to a loader at rest
  loaded: int  # images loaded meanwhile

  @property
  def per_second(self) -> float:
    return self.images / self.wall


def run(
  config: ml_collections.ConfigDict,
  *,
  batch_size: int,
  num_rounds: int,
  seconds: float,
  json_path: str | os.PathLike | None = None,
) -> None:
  """Measures, prints the table, and writes the JSON file.

  Args:
    config: the whole config; its dataset must be there.
    batch_size: images per step, on one device.
    num_rounds: turns of each.
    seconds: of a turn, or two steps if they take longer.
    json_path: where to write it all as JSON, or None.
  """
  config.data.batch_size = batch_size
  own_step.check(config)
  split = datasets.open_split(config.data.name, config.data.train_split, config.data.data_dir)
  own_step.use_float32_on_cpu(config)
  print("compiling ...", flush=True)
  step = own_step.Step(config)
  step()
  loaded = sharding.put_batches(loader.train_batches(split, config, start_step=0), step.setup.mesh)
  next(loaded)
  kept = itertools.repeat(step.batch)
  synthetic, real = [], []
  # More than a loader at rest holds: its queue, a batch in each worker's hands, and the one transferred.
  head_start = 2 * (config.data.prefetch + loader.num_workers(config)) + 1
  print(f"measuring, {num_rounds} rounds ...", flush=True)
  for _ in range(num_rounds):
    synthetic.append(_turn(step, kept, seconds, head_start=0))
    real.append(_turn(step, loaded, seconds, head_start))
  print(table(config, split, synthetic, real))
  if json_path:
    whole = {name: [dataclasses.asdict(r) for r in found] for name, found in (("synthetic", synthetic), ("real", real))}
    pathlib.Path(json_path).write_text(json.dumps(whole, indent=2) + "\n")


def table(
  config: ml_collections.ConfigDict, split: datasets.Split, synthetic: Sequence[Turn], real: Sequence[Turn]
) -> str:
  """What was found, as text; lists of `Turn`."""
  rates = [statistics.median(r.per_second for r in found) for found in (synthetic, real)]
  waits = statistics.median(r.waited / r.wall for r in real)
  step_cpu = statistics.median(r.cpu / r.images for r in synthetic)
  load_cpu = statistics.median((r.cpu - step_cpu * r.images) / r.loaded for r in real)
  device, cores = jax.devices()[0], os.cpu_count()
  lines = [
    f"{config.model.name}, the config's own step: {config.data.batch_size} images of {config.data.image_size} x"
    f" {config.data.image_size}, {config.model.dtype}, on one {device.device_kind}; {split.name}, {cores} CPU cores",
    f"{f'{len(real)} rounds':28}{'images/s: median':>18}{'min':>8}{'max':>8}{'data wait':>11}",
  ]
  for name, found, rate, wait in (
    ("a batch on the device", synthetic, rates[0], ""),
    ("loaded", real, rates[1], waits),
  ):
    each = [r.per_second for r in found]
    lines.append(f"{name:28}{rate:18,.2f}{min(each):8,.2f}{max(each):8,.2f}{wait if wait == '' else f'{wait:.1%}':>11}")
  lines.append(f"loaded / on the device: {rates[1] / rates[0]:.1%}")
  lines.append(f"an image costs {1e3 * step_cpu:.4g} ms of CPU time in the step, {1e3 * load_cpu:.3g} ms in the loader")
  if device.platform == "cpu":
    lines.append(f"both share the cores, so {step_cpu / (step_cpu + load_cpu):.1%} can be reached")
  else:
    lines.append(f"{cores} cores can load at most {cores / load_cpu:,.0f} images/s; the step wants {rates[0]:,.0f}")
  return "\n".join(lines)


def _turn(step, batches, seconds, head_start):
  """Steps as the training loop does them, one ahead of the device; first, head_start batches are thrown away."""
  before, _ = usage.settle()
  for _ in range(head_start):
    next(batches)
  count, waited, previous, start = 0, 0.0, None, time.perf_counter()
  while count < 2 or time.perf_counter() < start + seconds:
    asked = time.perf_counter()
    batch = next(batches)
    waited += time.perf_counter() - asked
    step.state, metrics = step.compiled(step.state, batch)
    jax.block_until_ready(previous)
    previous, count = metrics, count + 1
  jax.block_until_ready(previous)
  wall = time.perf_counter() - start
  after, _ = usage.settle()
  rows = step.setup.config.data.batch_size
  return Turn(count * rows, wall, waited, after - before, (count + head_start) * rows)
