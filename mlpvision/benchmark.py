"""How fast the loader is, stage by stage, and beside the two usual ways of loading images.

  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py
  python -m mlpvision.benchmark data --config=configs/s2mlp_wide.py --synthetic=2000 --peers

--synthetic needs no dataset. CPU seconds tell more than seconds on a machine that others use too.
"""

import tempfile

from absl import flags
from ml_collections import config_flags

from mlpvision import commands, config as config_lib
from mlpvision.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
_SYNTHETIC = flags.DEFINE_integer(
  "synthetic", 0, "Make this many images like ImageNet's and load those; 0: the config's dataset.", lower_bound=0
)
_PEERS = flags.DEFINE_bool("peers", False, "Also Pillow in processes, as PyTorch's DataLoader with timm, and tf.data.")
_SECONDS = flags.DEFINE_float("seconds", 3, "How long each stage, and each loader's turn, takes.", lower_bound=0.1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "How many turns each loader gets.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "Also write everything to this file.")


def main(argv):
  """Measures and prints."""
  if argv[1:] != ["data"]:
    raise UserError("say what to measure: python -m mlpvision.benchmark data --config=FILE")
  config = commands.read_config(_CONFIG)
  with tempfile.TemporaryDirectory() as directory:
    if not _SYNTHETIC.value:
      config_lib.check(config)
    from mlpvision.benchmarking import data

    if _SYNTHETIC.value:
      data.prepare_synthetic(config, _SYNTHETIC.value, directory)
      config_lib.check(config)
    data.run(config, seconds=_SECONDS.value, num_rounds=_ROUNDS.value, with_peers=_PEERS.value, json_path=_JSON.value)


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  commands.run(main)
