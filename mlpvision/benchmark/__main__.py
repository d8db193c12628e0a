"""Measures how fast images load, how fast a step runs, and how fast both run together.

  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py
  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py --synthetic=2000 --peers
  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py --synthetic=2000 --latency_ms=30
  python -m mlpvision.benchmark step --config=configs/s2mlp_wide.py --batch_size=8 --peers
  python -m mlpvision.benchmark train --config=configs/s2mlp_wide.py --batch_size=8 --synthetic=2000

data: the loader alone. step: the train step alone, on images that are on the device. train: the step fed by the loader,
compared with the step alone. On a machine with other work, CPU seconds are more reliable than seconds.
"""

import json
import pathlib
import tempfile

from absl import flags
from ml_collections import config_flags

from mlpvision import commands, config as config_lib
from mlpvision.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
_SYNTHETIC = flags.DEFINE_integer(
  "synthetic",
  0,
  "data, train: generate this many images with ImageNet's sizes and load them instead of the config's dataset (0: do"
  " not). In the repository only.",
  lower_bound=0,
)
_PEERS = flags.DEFINE_bool(
  "peers",
  False,
  "data: also measure Pillow in worker processes, as PyTorch's DataLoader with timm uses it, and tf.data. step: also"
  " measure PyTorch and plain flax layers. In the repository only.",
)
_LATENCY_MS = flags.DEFINE_float(
  "latency_ms",
  0,
  "data: also measure our loader where each read takes this much longer, as in a bucket.",
  lower_bound=0,
)
_SECONDS = flags.DEFINE_float("seconds", 3, "data, train: duration of each stage and each round.", lower_bound=0.1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "step, train: images per step, on one device.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds; in each, everything is measured once.", lower_bound=1)
_JSON = commands.define_path("json", None, "Also write all results to this file.")


def main(argv: list[str]) -> None:
  """Measures, prints tables and writes the JSON file."""
  subjects = {"data": _data, "step": _step, "train": _train}
  if len(argv) != 2 or argv[1] not in subjects:
    raise UserError(f"name what to measure: python -m mlpvision.benchmark {'|'.join(subjects)} --config=FILE")
  config = commands.read_config(_CONFIG)
  if config.get("task", "classification") != "classification":
    raise UserError(f"config.task={config.task!r}: the benchmarks measure classification alone")
  with tempfile.TemporaryDirectory() as directory:
    if argv[1] != "step":
      if _SYNTHETIC.value:
        synthetic = commands.of_repository("benchmarks.synthetic", "--synthetic")
        print(f"generating {_SYNTHETIC.value:,} images in {directory} ...", flush=True)
        config.data.name, config.data.train_split = synthetic.prepare(directory, _SYNTHETIC.value), "train"
      config_lib.check(config)
    found = subjects[argv[1]](config)
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(json.dumps(found, indent=2) + "\n")


def _data(config):
  from mlpvision.benchmark import measure_data

  processes = None
  if _PEERS.value or _SYNTHETIC.value:
    processes = commands.of_repository("benchmarks.contender", "--peers")
  peers = commands.of_repository("benchmarks.loaders", "--peers") if _PEERS.value else None
  latency = _LATENCY_MS.value / 1e3
  return measure_data.run(config, _SECONDS.value, _ROUNDS.value, latency=latency, processes=processes, peers=peers)


def _step(config):
  from mlpvision.benchmark import measure_step

  peers = commands.of_repository("benchmarks.peers", "--peers") if _PEERS.value else None
  return measure_step.run(config, _BATCH_SIZE.value, _ROUNDS.value, peers=peers)


def _train(config):
  from mlpvision.benchmark import measure_train

  return measure_train.run(config, _BATCH_SIZE.value, _SECONDS.value, _ROUNDS.value)


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  commands.run(main)
