"""Measures loading: each stage alone, and the whole loader, alone or in turns with other loaders or slow storage."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import itertools
import os
import statistics
import time
import types
from typing import Any

import jax
import ml_collections
import numpy as np

from mlpvision.benchmark import usage
from mlpvision.data import batches as batches_lib, datasets, loader, reads, rows as rows_lib

_EXAMPLES = 256  # images that the stages after reading use again and again


@dataclasses.dataclass(frozen=True)
class Slow:
  """A source that waits before each read, as a bucket does."""

  source: Any
  seconds: float

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Any:
    time.sleep(self.seconds)
    return self.source[index]


@dataclasses.dataclass
class Stage:
  """Images per second of one stage that runs alone in one thread."""

  name: str
  per_second: float
  per_cpu_second: float


@dataclasses.dataclass
class Turn:
  """One loader in one round: images, seconds, CPU seconds, and peak memory in bytes (None: unknown)."""

  images: int
  wall: float
  cpu: float
  memory: int | None


def run(
  config: ml_collections.ConfigDict,
  seconds: float,
  num_rounds: int,
  *,
  latency: float = 0,
  processes: types.ModuleType | None = None,
  peers: types.ModuleType | None = None,
) -> dict[str, Any]:
  """Measures, prints the tables, and returns the results for a JSON file.

  Args:
    config: the whole config. Its dataset must be available.
    seconds: duration of each stage and of each loader's turn.
    num_rounds: how many turns each loader takes.
    latency: also measure our loader where each read takes this many seconds longer, with the reads in flight of remote
      storage if config.data.reads is -1.
    processes: benchmarks.contender, to run each loader in its own process, which also measures memory; None: here.
    peers: benchmarks.loaders, to measure other loaders too; this takes `processes`.
  """
  split = datasets.of(config, config.data.train_split, training=True)
  workers, cores = loader.num_workers(config), os.cpu_count()
  title = (
    f"{split.name}: {len(split):,} images to {config.data.image_size} x {config.data.image_size},"
    f" batch {config.data.batch_size}, {f'{workers} workers' if workers else 'threads'}, {cores} CPU cores,"
    f" RandAugment {config.augment.randaugment or 'off'}"
  )
  with contextlib.ExitStack() as stack:
    loaders = {"ours": (own_batches, config.to_dict())}
    if latency:
      in_flight = loader.num_reads(config, remote=True)
      slow = config.copy_and_resolve_references()
      slow.data.reads = in_flight
      loaders[f"ours, {1e3 * latency:g} ms a read, {in_flight} reads"] = (own_batches, slow.to_dict(), latency)
    if peers:
      loaders |= stack.enter_context(peers.make(config, split, workers or cores))
    print(title, flush=True)
    stages = measure_stages(split, config, seconds)
    if workers:
      stages.append(measure_main_process(split, config, seconds))
    print(_stage_table(stages), flush=True)
    if processes:
      contenders = {
        name: stack.enter_context(processes.start(f"the loader {name}", serve_batches, *arguments))
        for name, arguments in loaders.items()
      }
      takes = {name: contender.turn_and_memory for name, contender in contenders.items()}
    else:
      served = {name: serve_batches(*arguments)[1] for name, arguments in loaders.items()}
      takes = {name: lambda seconds, turn=turn: (turn(seconds), None) for name, turn in served.items()}
    turns = {name: [] for name in loaders}
    for _ in range(num_rounds):
      for name, take in takes.items():
        measured, memory = take(seconds)
        turns[name].append(Turn(*measured, memory))
  print(_loader_table(turns))
  return {
    "title": title,
    "pipeline": pipeline(config),
    "stages": [dataclasses.asdict(stage) for stage in stages],
    "loaders": {name: [dataclasses.asdict(turn) for turn in found] for name, found in turns.items()},
  }


def pipeline(config: ml_collections.ConfigDict) -> list[Any]:
  """What loading an image costs depends on: equal for configs that load at the same speed."""
  return [config.augment.crop, list(config.augment.crop_scale), config.augment.randaugment, config.data.image_size]


def measure_stages(split: datasets.Split, config: ml_collections.ConfigDict, seconds: float) -> list[Stage]:
  """Measures reading, decoding with cropping, RandAugment, batching and the transfer, each for `seconds`."""
  rng = np.random.default_rng(config.seed)
  rows = config.data.batch_size
  examples = [split.source[int(i)]["image"] for i in rng.integers(len(split), size=_EXAMPLES)]
  task_rows = rows_lib.of(config)
  crops = [task_rows.draw_crop(data, rng)[0] for data in examples]
  some = itertools.cycle(range(_EXAMPLES))
  stages = [
    ("read", 1, lambda: split.source[int(rng.integers(len(split)))]),
    ("decode and crop", 1, lambda: task_rows.draw_crop(examples[next(some)], rng)),
  ]
  if randaugment := task_rows.randaugment:
    stages.append(("RandAugment", 1, lambda: randaugment(crops[next(some)], rng)))
  some_rows = [{"image": crops[i % _EXAMPLES]} for i in range(rows)]
  one = batches_lib.Batches(some_rows, lambda position: None, reads.Ahead(None, 0), size=rows, count=1)
  batch = one.load(0)["image"]
  stages.append(("batch", rows, lambda: one.load(0)))
  stages.append((f"transfer to {jax.devices()[0].platform}", rows, lambda: jax.device_put(batch).block_until_ready()))
  return [_time(name, images, call, seconds) for name, images, call in stages]


def measure_main_process(split: datasets.Split, config: ml_collections.ConfigDict, seconds: float) -> Stage:
  """What the main process does for an image that worker processes have loaded: its own CPU seconds."""
  with contextlib.closing(loader.train_batches(split, config, start_step=0)) as source:
    for _ in range(2 * config.data.prefetch):  # each place in shared memory is mapped once
      next(source)
    return _time("main process", config.data.batch_size, lambda: next(source), seconds)


def _time(name, images, call, seconds):
  call()
  calls, cpu, start = 0, time.process_time(), time.perf_counter()
  while (wall := time.perf_counter() - start) < seconds:
    call()
    calls += 1
  return Stage(name, calls * images / wall, calls * images / max(1e-9, time.process_time() - cpu))


def own_batches(config: Mapping[str, Any], latency: float = 0) -> Iterator[np.ndarray]:
  """Training images uint8 [B, H, W, 3] of a config given as a dict; flipped here, since other loaders flip too.

  latency: seconds that each read takes longer.
  """
  config = ml_collections.ConfigDict(config)
  split = datasets.of(config, config.data.train_split, training=True)
  if latency:
    split = dataclasses.replace(split, source=Slow(split.source, latency))
  rng = np.random.default_rng(0)
  with contextlib.closing(loader.train_batches(split, config, start_step=0)) as source:
    for batch in source:
      images = batch["image"]
      flipped = rng.random(len(images)) < config.augment.flip
      images[flipped] = images[flipped, :, ::-1]
      yield images


def serve_batches(make: Callable[..., Iterator[np.ndarray]], *arguments: Any) -> tuple[None, Callable[[float], tuple]]:
  """(None, turn) for the loader whose batches make(*arguments) yields; turn(seconds) -> (images, seconds, CPU seconds).

  Before and after a turn, the loader's queues are full, so that it has loaded as many images as were taken.
  """
  batches = make(*arguments)
  next(batches)
  usage.settle()

  def turn(seconds):
    before, start = usage.cpu_seconds(), time.perf_counter()
    images = 0
    while time.perf_counter() < start + seconds:
      images += len(next(batches))
    after, end = usage.settle()
    return images, end - start, after - before

  return None, turn


def _stage_table(stages):
  lines = [f"{'stage, alone in one thread':30}{'images/s':>12}{'per CPU-second':>16}{'CPU ms/image':>14}"]
  lines += [f"{s.name:30}{s.per_second:12,.0f}{s.per_cpu_second:16,.0f}{1e3 / s.per_cpu_second:14.3f}" for s in stages]
  return "\n".join(lines)


def _loader_table(turns: Mapping[str, Sequence[Turn]]) -> str:
  speeds = {name: [turn.images / turn.cpu for turn in found] for name, found in turns.items()}
  own_speed = statistics.median(speeds["ours"])
  title = f"whole loader, {len(turns['ours'])} rounds"
  lines = [
    f"{title:34}{'images/s':>12}{'per CPU-second: median':>24}{'min':>8}{'max':>8}"
    f"{'ours/it':>9}{'peak memory':>13}{'last round':>12}"
  ]
  for name, found in turns.items():
    memory = [turn.memory for turn in found]
    peak, last = ("?", "?") if None in memory else (f"{size / 1e6:,.0f} MB" for size in (max(memory), memory[-1]))
    median = statistics.median(speeds[name])
    lines.append(
      f"{name:34}{statistics.median(turn.images / turn.wall for turn in found):12,.0f}{median:24,.0f}"
      f"{min(speeds[name]):8,.0f}{max(speeds[name]):8,.0f}{own_speed / median:9.2f}{peak:>13}{last:>12}"
    )
  lines.append(
    "CPU seconds include a loader's worker processes. All loaders flip on the host here; in training, the device does."
  )
  for name, found in turns.items():
    if name.startswith("ours, "):
      shares = sorted(
        slow.images / slow.wall * turn.wall / turn.images for slow, turn in zip(found, turns["ours"], strict=True)
      )
      lines.append(
        f"{name}: {statistics.median(shares):.1%} of ours in the same round ({shares[0]:.1%} to {shares[-1]:.1%})"
      )
  if not usage.COMPLETE:
    lines.append("Without /proc, the CPU seconds of running worker processes are unknown, and so is memory.")
  return "\n".join(lines)
