"""How fast images are loaded: each stage alone, and the whole loader beside others."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
from typing import Any

import ml_collections
import numpy as np

from mlpvision import commands
from mlpvision.benchmark import stages, synthetic, usage
from mlpvision.benchmark.contender import Contender, serve_batches
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError

# So many images of the dataset the other loaders get as files; they read them over and over.
_FILES = 1000


@dataclasses.dataclass
class Turn:
  """One loader's turn: images, seconds, CPU seconds, and the most bytes seen (None: not known)."""

  images: int
  wall: float
  cpu: float
  memory: int | None

  @property
  def per_cpu_second(self) -> float:
    return self.images / self.cpu

  @property
  def per_second(self) -> float:
    return self.images / self.wall


def run(
  config: ml_collections.ConfigDict,
  *,
  seconds: float,
  num_rounds: int,
  with_peers: bool,
  json_path: str | os.PathLike | None = None,
) -> None:
  """Measures, prints the tables, and writes the JSON file.

  Args:
    config: the whole config; its dataset must be there.
    seconds: of one turn, and of one stage.
    num_rounds: turns of each loader.
    with_peers: also Pillow in processes, and tf.data; in a checkout.
    json_path: where to write it all as JSON, or None.
  """
  if with_peers:
    pillow, tfdata = (commands.of_repository(f"benchmarks.{name}", "--peers") for name in ("pillow", "tfdata"))
    if config.augment.crop != "random_resized":
      raise UserError(f"--peers: the other loaders know no augment.crop={config.augment.crop!r}, only 'random_resized'")
  split = datasets.open_split(config.data.name, config.data.train_split, config.data.data_dir)
  workers, cores = loader.num_workers(config), os.cpu_count()
  title = (
    f"{split.name}: {len(split):,} images to {config.data.image_size} x {config.data.image_size},"
    f" batch {config.data.batch_size}, {f'{workers} workers' if workers else 'threads'}, {cores} CPU cores,"
    f" RandAugment {config.augment.randaugment or 'off'}"
  )
  print(title, flush=True)
  found = stages.measure(split, config, seconds)
  print(stages.table(found), flush=True)
  loaders = {"ours": (own_batches, config.to_dict())}
  turns = {}
  with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
    if with_peers:
      paths, processes = _write_files(split, directory), workers or cores
      loaders[f"Pillow, {processes} processes"] = (pillow.batches, config.to_dict(), paths, processes)
      loaders["tf.data, no RandAugment"] = (tfdata.batches, config.to_dict(), paths)
    contenders = []
    for name, arguments in loaders.items():
      contenders.append(Contender(f"the loader {name}", serve_batches, *arguments))
      stack.callback(contenders[-1].close)
    for _ in range(num_rounds):
      for name, contender in zip(loaders, contenders, strict=True):
        measured, memory = contender.turn_and_memory(seconds)
        turns.setdefault(name, []).append(Turn(*measured, memory))
  print(table(turns))
  if json_path:
    whole = {
      "title": title,
      "stages": [dataclasses.asdict(stage) for stage in found],
      "loaders": {name: [dataclasses.asdict(turn) for turn in found] for name, found in turns.items()},
    }
    pathlib.Path(json_path).write_text(json.dumps(whole, indent=2) + "\n")


def own_batches(config: Mapping[str, Any]) -> Iterator[np.ndarray]:
  """Training batches of a config, given as a dict; flipped on the host, which training leaves to the device."""
  config = ml_collections.ConfigDict(config)
  split = datasets.open_split(config.data.name, config.data.train_split, config.data.data_dir)
  rng = np.random.default_rng(0)
  with contextlib.closing(loader.train_batches(split, config, start_step=0)) as source:
    for batch in source:
      images = batch["image"]
      flipped = rng.random(len(images)) < config.augment.flip
      images[flipped] = images[flipped, :, ::-1]
      yield images


def prepare_synthetic(config: ml_collections.ConfigDict, num_images: int, directory: str | os.PathLike) -> None:
  """Lets the config train on num_images images like ImageNet's, prepared in the directory."""
  print(f"making {num_images:,} images in {directory} ...", flush=True)
  config.data.name, config.data.train_split = synthetic.prepare(directory, num_images), "train"


def table(turns: Mapping[str, Sequence[Turn]]) -> str:
  """{name of a loader: its turns} as text, ours first."""
  median = {name: statistics.median(turn.per_cpu_second for turn in found) for name, found in turns.items()}
  ours, *_ = turns
  lines = [
    f"{f'whole loader, {len(turns[ours])} rounds':30}{'images/s':>12}{'per CPU-second: median':>24}{'min':>8}{'max':>8}"
    f"{'ours/it':>9}{'peak memory':>13}{'last round':>12}"
  ]
  for name, found in turns.items():
    speeds, memory = [turn.per_cpu_second for turn in found], [turn.memory for turn in found]
    sizes = (max(memory), memory[-1]) if None not in memory else ()
    peak, last = (f"{size / 1e6:,.0f} MB" for size in sizes) if sizes else ("?", "?")
    lines.append(
      f"{name:30}{statistics.median(turn.per_second for turn in found):12,.0f}{median[name]:24,.0f}"
      f"{min(speeds):8,.0f}{max(speeds):8,.0f}{median[ours] / median[name]:9.2f}{peak:>13}{last:>12}"
    )
  lines.append(
    "All processes of a loader count. Every loader here flips on the host, so that all do the same work; in training,"
    "\nthe device flips."
  )
  if not usage.COMPLETE:
    lines.append("Without /proc, worker processes that still run do not count, and memory is not known.")
  return "\n".join(lines)


def _write_files(split, directory):
  paths = []
  for i in range(min(_FILES, len(split))):
    data = split.source[i]["image"]
    if data.startswith(b"\xff\xd8"):  # tf.data's fused decoding takes nothing but JPEGs
      paths.append(os.path.join(directory, f"{i}.jpg"))
      pathlib.Path(paths[-1]).write_bytes(data)
  if not paths:
    raise UserError(f"{split.name} has no JPEGs; --peers needs some")
  return paths
