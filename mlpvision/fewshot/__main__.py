"""Few-shot accuracy and linear probe of any weights: python -m mlpvision.fewshot --weights=RUN --shots=1,5,10,0

0 shots is the linear probe on all training images. --config names the dataset; default: the run's own.
"""

import json

from absl import flags
from ml_collections import config_flags

from mlpvision import commands
from mlpvision.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Config with the dataset; default: the run's own.")
_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weights or their name.")
_EMA = flags.DEFINE_bool("ema", None, "Use the EMA of the parameters.")
_PREPROCESSING = flags.DEFINE_string("preprocessing", None, commands.PREPROCESSING)
_SHOTS = flags.DEFINE_list("shots", ["1", "5", "10"], "Training images per class; 0 uses all.")
_JSON = flags.DEFINE_bool("json", False, "Print the results as one JSON object.")


def main(argv: list[str]) -> None:
  """Fits the classifiers and prints their accuracy."""
  del argv
  config = commands.read_config(_CONFIG)
  try:
    shots = [int(count) for count in _SHOTS.value]
  except ValueError as error:
    raise UserError(f"--shots={','.join(_SHOTS.value)}: must be numbers of images, such as 1,5,10") from error
  import jax
  from jax.sharding import NamedSharding, PartitionSpec as P

  from mlpvision import sharding, trained as trained_lib
  from mlpvision.data import datasets
  from mlpvision.evaluate import evaluators, run
  from mlpvision.fewshot import linear_probe

  sharding.initialize_processes()
  mesh = sharding.make_mesh()
  trained = trained_lib.load(
    _WEIGHTS.value, sharding=NamedSharding(mesh, P()), ema=_EMA.value, preprocessing=_PREPROCESSING.value
  )
  merged = run.with_dataset(trained, config)
  evaluators.check_task("fewshot", merged, "name a classifier")
  data = merged.data
  splits = [datasets.open_split(data.name, split, data.data_dir) for split in (data.train_split, data.eval_split)]
  results = linear_probe.FewShot(trained.model, *splits, merged, mesh, shots).run(trained.variables)
  if jax.process_index() == 0:
    if _JSON.value:
      print(json.dumps({"weights": _WEIGHTS.value, "dataset": splits[1].name, **results}))
    else:
      print(f"{_WEIGHTS.value}, on {splits[1].name}: {len(splits[1]):,} images")
      print("  ".join(f"{name.removeprefix('top1_')} {value:.2%}" for name, value in results.items()))


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
