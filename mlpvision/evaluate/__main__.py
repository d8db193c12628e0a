"""Exact accuracy of a run or of published weights.

  python -m mlpvision.evaluate --weights=WORKDIR
  python -m mlpvision.evaluate --weights=mixer_b16.goog_in1k --config=configs/mixer_b16.py

Other datasets, prepared once (python -m mlpvision.prepare NAME), or folders of images:

  ... --config.data.name=imagenet_v2/matched-frequency --config.data.eval_split=test   (also threshold-0.7, topimages)
  ... --config.data.name=imagenet2012_real --config.data.eval_split=validation
  ... --config.data.name=imagenet_a --config.data.eval_split=test   (also imagenet_r, imagenet_sketch)
  ... --config.data.name=folder:/path/to/images --config.data.eval_split=val

Classes are matched by name; if another dataset than the run's has only some of the weights' classes, the other logits
are ignored. For an image with several correct classes (ImageNet-ReaL), any of them counts as correct; images without a
label are left out.

The results of every image of a classifier, for the analysis of its errors:

  ... --csv=FILE     a row for each image with a label: its index in the split, its file in a folder, label, prediction,
                     the prediction's probability, and loss
  ... --json=FILE    all that --json prints, and the same rows as "per_image"

Model and preprocessing belong to the weights. --config chooses the dataset (default: the run's own): it is read for
data.name, data_dir, train_split, eval_split, workers, reads and prefetch, for eval.batch_size, evals, seed and mesh.

Of a segmenter, the metrics are mIoU, aAcc (the share of correct pixels) and mAcc (its mean over the classes), and
--config is also read for data.classes, data.reduce_zero_label, eval.mode, stride, scales and flip. Several scales:

  ... --config.eval.scales="(0.5, 0.75, 1.0, 1.25, 1.5, 1.75)" --config.eval.flip=True
"""

import json

from absl import flags
from ml_collections import config_flags

from mlpvision import commands

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Config with the dataset; default: the run's own.")
_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weights or their name.")
_EMA = flags.DEFINE_bool("ema", None, "Evaluate the EMA of the parameters.")
_PREPROCESSING = flags.DEFINE_string("preprocessing", None, commands.PREPROCESSING)
_EVALS = flags.DEFINE_list("evals", ["accuracy"], "accuracy, calibration, fewshot, or names in config.evals.")
_JSON = commands.define_optional_path(
  "json", "Print the results as one JSON object, or write them to this file with those of every image."
)
_CSV = commands.define_path("csv", None, "Also write the results of every image to this file.")


def main(argv: list[str]) -> None:
  """Evaluates the weights and prints the results."""
  del argv
  config = commands.read_config(_CONFIG)
  import jax

  from mlpvision import sharding
  from mlpvision.evaluate import evaluators, run
  from mlpvision.evaluate.per_image import COLUMNS
  from mlpvision.reporting import tables

  sharding.initialize_processes()
  per_image = bool(_CSV.value or _JSON.value)
  options = dict(ema=_EMA.value, preprocessing=_PREPROCESSING.value, evals=_EVALS.value, per_image=per_image)
  results = run.evaluate(_WEIGHTS.value, config, **options)
  if jax.process_index():
    return
  if _JSON.value == "":
    print(json.dumps({name: value for name, value in results.items() if name != "per_image"}))
  elif _JSON.value:
    with tables.Objects(_JSON.value) as file:
      file.add([results])
  if _CSV.value:
    with tables.Table(_CSV.value, COLUMNS) as table:
      table.add([row[name] for name in COLUMNS] for row in results["per_image"])
  if _JSON.value == "":
    return
  step = "" if results["step"] is None else f", step {results['step']}"
  count = f": {results['images']:,} images" if "images" in results else ""
  print(f"{results['weights']}{step}, on {results['dataset']}{count}\npreprocessing: {results['preprocessing']}")
  for note in results["notes"]:
    print(f"note: {note}")
  numbers = {f"/{name}": value for name, value in results.items() if isinstance(value, float)}
  print(evaluators.summary(numbers, digits=4))


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
