"""The data benchmark as a whole."""

import os
import pathlib
import tempfile

import ml_collections

from mlpvision.benchmark import ours, report, rounds, stages, synthetic
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError

# So many images of the dataset the other loaders get as files; they read them over and over.
_FILES = 1000


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
    seconds: of one round, and of one stage.
    num_rounds: turns of each loader.
    with_peers: also Pillow in processes, and tf.data.
    json_path: where to write it all as JSON, or None.
  """
  if with_peers and config.augment.crop != "random_resized":
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
  print(report.stages(found), flush=True)
  with tempfile.TemporaryDirectory() as directory:
    contestants = []
    try:
      contestants.append(rounds.Contestant("ours", ours.batches, config.to_dict()))
      if with_peers:
        paths = _write_files(split, directory)
        from benchmarks import pillow, tfdata

        processes = workers or cores
        name = f"Pillow, {processes} processes"
        contestants.append(rounds.Contestant(name, pillow.batches, config.to_dict(), paths, processes))
        contestants.append(rounds.Contestant("tf.data, no RandAugment", tfdata.batches, config.to_dict(), paths))
      for _ in range(num_rounds):
        for contestant in contestants:
          contestant.run(seconds)
    finally:
      for contestant in contestants:
        contestant.close()
  print(report.contestants(contestants))
  if json_path:
    pathlib.Path(json_path).write_text(report.to_json(title, found, contestants))


def prepare_synthetic(config: ml_collections.ConfigDict, num_images: int, directory: str | os.PathLike) -> None:
  """Lets the config train on num_images images like ImageNet's, prepared in the directory."""
  print(f"making {num_images:,} images in {directory} ...", flush=True)
  config.data.name, config.data.train_split = synthetic.prepare(directory, num_images), "train"


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
