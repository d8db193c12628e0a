"""What each part of the way to the device costs by itself, in one thread of this process."""

from collections.abc import Sequence
import dataclasses
import itertools
import time

import grain
import jax
import ml_collections
import numpy as np

from mlpvision.data import datasets, rows as rows_lib

_EXAMPLES = 256


@dataclasses.dataclass
class Stage:
  """How fast one part is when it runs alone."""

  name: str
  per_second: float
  per_cpu_second: float


def measure(split: datasets.Split, config: ml_collections.ConfigDict, seconds: float) -> list[Stage]:
  """The stages of training with this config: read, decode and crop, augment, batch, transfer.

  Args:
    split: datasets.Split.
    config: the whole config.
    seconds: how long to measure each.

  Returns:
    list of Stage.
  """
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
  rows_of_batch = grain.MapDataset.source([{"image": crops[i % _EXAMPLES]} for i in range(rows)]).batch(rows)
  batch = rows_of_batch[0]["image"]
  stages.append(("batch", rows, lambda: rows_of_batch[0]))
  stages.append((f"transfer to {jax.devices()[0].platform}", rows, lambda: jax.device_put(batch).block_until_ready()))
  return [_time(name, images, call, seconds) for name, images, call in stages]


def table(found: Sequence[Stage]) -> str:
  """Stages as text."""
  lines = [f"{'stage, alone in one thread':30}{'images/s':>12}{'per CPU-second':>16}{'CPU ms/image':>14}"]
  lines += [
    f"{stage.name:30}{stage.per_second:12,.0f}{stage.per_cpu_second:16,.0f}{1e3 / stage.per_cpu_second:14.3f}"
    for stage in found
  ]
  return "\n".join(lines)


def _time(name, images, call, seconds):
  call()
  calls, cpu, start = 0, time.process_time(), time.perf_counter()
  while (wall := time.perf_counter() - start) < seconds:
    call()
    calls += 1
  return Stage(name, calls * images / wall, calls * images / max(1e-9, time.process_time() - cpu))
