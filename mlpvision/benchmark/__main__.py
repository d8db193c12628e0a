"""How fast loading is and how fast the model's step is, beside the usual ways to do the same, and both together.

  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py
  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py --synthetic=2000 --peers
  python -m mlpvision.benchmark step --config=configs/s2mlp_wide.py --batch_size=8 --peers
  python -m mlpvision.benchmark train --config=configs/s2mlp_wide.py --batch_size=8 --synthetic=2000

data: the loader alone. step: the model alone, on images that are on the device. train: both together, beside the step
alone. --synthetic makes a dataset, for those who have none. CPU seconds tell more than seconds on a machine that others
use too.
"""

import contextlib
import tempfile

from absl import flags
from ml_collections import config_flags

from mlpvision import commands, config as config_lib
from mlpvision.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
_SYNTHETIC = flags.DEFINE_integer(
  "synthetic", 0, "Make this many images like ImageNet's, and load those; 0: the config's dataset.", lower_bound=0
)
_PEERS = flags.DEFINE_bool(
  "peers",
  False,
  "data: also Pillow in processes, as PyTorch's DataLoader with timm, and tf.data. step: also PyTorch. In a checkout.",
)
_SECONDS = flags.DEFINE_float("seconds", 3, "data, train: how long each stage and each turn takes.", lower_bound=0.1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "step, train: images per step, on one device.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "How many turns each contender gets.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "Also write everything to this file.")


def main(argv: list[str]) -> None:
  """Measures and prints."""
  subjects = {"data": _data, "step": _step, "train": _train}
  if len(argv) != 2 or argv[1] not in subjects:
    raise UserError(f"say what to measure: python -m mlpvision.benchmark {'|'.join(subjects)} --config=FILE")
  subjects[argv[1]](commands.read_config(_CONFIG))


def _data(config):
  with _dataset(config):
    from mlpvision.benchmark import measure_data

    options = dict(seconds=_SECONDS.value, num_rounds=_ROUNDS.value, json_path=_JSON.value)
    measure_data.run(config, **options, with_peers=_PEERS.value)


def _train(config):
  with _dataset(config):
    from mlpvision.benchmark import measure_train

    options = dict(seconds=_SECONDS.value, num_rounds=_ROUNDS.value, json_path=_JSON.value)
    measure_train.run(config, **options, batch_size=_BATCH_SIZE.value)


@contextlib.contextmanager
def _dataset(config):
  """Inside, the config's dataset is there, or the synthetic one in its place."""
  with tempfile.TemporaryDirectory() as directory:
    if not _SYNTHETIC.value:
      config_lib.check(config)
    else:
      from mlpvision.benchmark import measure_data

      measure_data.prepare_synthetic(config, _SYNTHETIC.value, directory)
      config_lib.check(config)
    yield


def _step(config):
  from mlpvision.benchmark import measure_step

  options = dict(num_rounds=_ROUNDS.value, with_peers=_PEERS.value, json_path=_JSON.value)
  measure_step.run(config, batch_size=_BATCH_SIZE.value, **options)


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  commands.run(main)
