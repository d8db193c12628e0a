"""Measures training end to end: steps fed by the loader, in turns with steps on a batch that stays on the device."""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import os
import statistics
import time
from typing import Any

import jax
import ml_collections

from mlpvision import sharding
from mlpvision.benchmark import own_step, usage
from mlpvision.data import datasets, loader


@dataclasses.dataclass
class Turn:
  """Consecutive steps: images, seconds, seconds without a batch, CPU seconds, and images loaded in the meantime."""

  images: int
  wall: float
  waited: float
  cpu: float
  loaded: int

  @property
  def per_second(self) -> float:
    return self.images / self.wall


def run(config: ml_collections.ConfigDict, batch_size: int, seconds: float, num_rounds: int) -> dict[str, Any]:
  """Measures, prints the table, and returns the results for a JSON file.

  Args:
    config: the whole config. Its dataset must be available.
    batch_size: images per step, on one device.
    seconds: duration of a turn, but at least two steps.
    num_rounds: how many turns each side takes.
  """
  config.data.batch_size = batch_size
  split = datasets.of(config, config.data.train_split, training=True)
  own_step.use_float32_on_cpu(config)
  print("compiling ...", flush=True)
  step = own_step.Step(config)
  step()
  loaded = sharding.put_batches(loader.train_batches(split, config, start_step=0), step.setup.mesh)
  next(loaded)
  kept = itertools.repeat(step.batch)
  synthetic, real = [], []
  # More than an idle loader holds: its queue, one batch per worker, and the one transferred.
  head_start = 2 * (config.data.prefetch + loader.num_workers(config)) + 1
  print(f"measuring, {num_rounds} rounds ...", flush=True)
  for _ in range(num_rounds):
    synthetic.append(_turn(step, kept, seconds, head_start=0))
    real.append(_turn(step, loaded, seconds, head_start))
  print(table(config, split.name, synthetic, real))
  found = {"synthetic": synthetic, "real": real}
  return {name: [dataclasses.asdict(turn) for turn in turns] for name, turns in found.items()}


def table(config: ml_collections.ConfigDict, dataset: str, synthetic: Sequence[Turn], real: Sequence[Turn]) -> str:
  """The results as text: turns on a batch that stays on the device, and turns fed by the loader."""
  step_cpu = statistics.median(turn.cpu / turn.images for turn in synthetic)
  load_cpu = statistics.median((turn.cpu - step_cpu * turn.images) / turn.loaded for turn in real)
  device, cores = jax.devices()[0], os.cpu_count()
  lines = [
    f"{config.model.name}, the config's own step: {config.data.batch_size} images of {config.data.image_size} x"
    f" {config.data.image_size}, {config.model.dtype}, on one {device.device_kind}; {dataset}, {cores} CPU cores",
    f"{f'{len(real)} rounds':28}{'images/s: median':>18}{'min':>8}{'max':>8}{'data wait':>11}",
  ]
  medians = []
  for name, turns in (("a batch on the device", synthetic), ("loaded", real)):
    rates = [turn.per_second for turn in turns]
    medians.append(statistics.median(rates))
    wait = "" if turns is synthetic else f"{statistics.median(turn.waited / turn.wall for turn in turns):.1%}"
    lines.append(f"{name:28}{medians[-1]:18,.2f}{min(rates):8,.2f}{max(rates):8,.2f}{wait:>11}")
  lines.append(f"loaded / on the device: {medians[1] / medians[0]:.1%}")
  lines.append(f"CPU time per image: {1e3 * step_cpu:.4g} ms in the step, {1e3 * load_cpu:.3g} ms in the loader")
  if device.platform == "cpu":
    lines.append(f"step and loader share the cores: at most {step_cpu / (step_cpu + load_cpu):.1%} can be reached")
  else:
    lines.append(f"{cores} cores can load at most {cores / load_cpu:,.0f} images/s; the step needs {medians[0]:,.0f}")
  return "\n".join(lines)


def _turn(step: own_step.Step, batches: Iterator[dict[str, jax.Array]], seconds: float, head_start: int) -> Turn:
  """Runs steps as the training loop does, one ahead of the device; drops head_start batches first."""
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
