"""Measures how fast images load, how fast a step runs, how fast both run together, or all of that.

  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py
  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py --synthetic=2000 --peers
  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py --synthetic=2000 --latency_ms=30
  python -m mlpvision.benchmark step --config=configs/s2mlp_wide.py --batch_size=8 --peers
  python -m mlpvision.benchmark train --config=configs/s2mlp_wide.py --batch_size=8 --synthetic=2000
  python -m mlpvision.benchmark all --peers --json=new.json --compare=old.json

data: the loader alone. step: the train step alone, on images that are on the device. train: the step fed by the loader,
compared with the step alone. all: the ratios of docs/performance.md that this machine can measure, on synthetic images,
or those of --config; --compare says which moved beyond noise. On a machine with other work, CPU seconds are more
reliable than seconds.
"""

import importlib
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
  " not). all: this many, 0 being 500. In the repository only.",
  lower_bound=0,
)
_PEERS = flags.DEFINE_bool(
  "peers",
  False,
  "data: also measure Pillow in worker processes, as PyTorch's DataLoader with timm uses it, and tf.data. step: also"
  " measure PyTorch and plain flax layers. all: both. In the repository only.",
)
_LATENCY_MS = flags.DEFINE_float(
  "latency_ms",
  0,
  "data: also measure our loader where each read takes this much longer, as in a bucket.",
  lower_bound=0,
)
_SECONDS = flags.DEFINE_float("seconds", 3, "data, train, all: duration of each stage and each round.", lower_bound=0.1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "step, train, all: images per step, on one device.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds; in each, everything is measured once.", lower_bound=1)
_JSON = commands.define_path("json", None, "Also write all results to this file.")
_COMPARE = commands.define_path("compare", None, "all: say what moved since this file was written with --json.")

# What docs/performance.md measures: {name there: (config, changes)}.
_STEPS = {name: (name, {}) for name in ("s2mlp_wide", "mixer_b16", "asmlp_tiny")}
_LOADERS = {
  "s2mlp_wide, threads": ("s2mlp_wide", {"data.workers": 0, "data.batch_size": 64}),
  "s2mlp_wide, 2 processes": ("s2mlp_wide", {"data.workers": 2, "data.batch_size": 64}),
}
_TRAININGS = {"mixer_s32": ("mixer_b16", {"model.name": "mixer_s32"})}


def main(argv: list[str]) -> None:
  """Measures, prints tables and writes the JSON file."""
  subjects = {"data": _data, "step": _step, "train": _train, "all": _all}
  if len(argv) != 2 or argv[1] not in subjects:
    raise UserError(f"name what to measure: python -m mlpvision.benchmark {'|'.join(subjects)} --config=FILE")
  if argv[1] == "all":
    return _write(_all())
  if _COMPARE.value:
    raise UserError("--compare is for `all`")
  if _CONFIG.value is None:
    raise UserError("--config is missing. --help lists the flags")
  config = _read_config()
  with tempfile.TemporaryDirectory() as directory:
    if argv[1] != "step":
      if _SYNTHETIC.value:
        synthetic = commands.of_repository("benchmarks.synthetic", "--synthetic")
        print(f"generating {_SYNTHETIC.value:,} images in {directory} ...", flush=True)
        config.data.name, config.data.train_split = synthetic.prepare(directory, _SYNTHETIC.value), "train"
      config_lib.check(config)
    _write(subjects[argv[1]](config))


def _read_config():
  config = commands.read_config(_CONFIG)
  if config.get("task", "classification") != "classification":
    raise UserError(f"config.task={config.task!r}: the benchmarks measure classification alone")
  return config


def _write(found):
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


def _all():
  from mlpvision.benchmark import measure_all

  old = _read(_COMPARE.value, measure_all.check) if _COMPARE.value else None
  synthetic = commands.of_repository("benchmarks.synthetic", "all")
  peers = {}
  if _PEERS.value:
    peers["step_peers"] = commands.of_repository("benchmarks.peers", "--peers")
    peers["loader_peers"] = commands.of_repository("benchmarks.loaders", "--peers")
  with tempfile.TemporaryDirectory() as directory:
    name = synthetic.prepare(directory, _SYNTHETIC.value or 500)
    found = measure_all.run(
      *(_configs(table, name) for table in (_STEPS, _LOADERS, _TRAININGS)),
      batch_size=_BATCH_SIZE.value,
      seconds=_SECONDS.value,
      num_rounds=_ROUNDS.value,
      processes=commands.of_repository("benchmarks.contender", "all"),
      **peers,
    )
  if old:
    print(f"\n{measure_all.compare(old, found)}")
  return found


def _configs(table, dataset):
  """{name: config with the dataset} of a table, or of --config alone."""
  found = {}
  if _CONFIG.value is not None:
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    found[name] = _read_config().copy_and_resolve_references()
  else:
    for name, (recipe, changes) in table.items():
      found[name] = importlib.import_module(f"configs.{recipe}").get_config()
      found[name].update_from_flattened_dict(changes)
  for config in found.values():
    config.data.name, config.data.train_split = dataset, "train"
    config_lib.check(config)
  return found


def _read(path, check):
  try:
    found = json.loads(pathlib.Path(path).read_text())
  except (OSError, ValueError) as error:
    raise UserError(f"--compare={path} cannot be read: {error}") from error
  check(found, path)
  return found


if __name__ == "__main__":
  commands.run(main)
