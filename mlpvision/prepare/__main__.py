"""Prepares a dataset as array_record files, which training reads.

  python -m mlpvision.prepare imagenet2012 --manual_dir=DIR --data_dir=DIR
  python -m mlpvision.prepare imagenet21k/winter21_256 --manual_dir=DIR
  python -m mlpvision.prepare ade20k --manual_dir=DIR
  python -m mlpvision.prepare coco2017_instances --manual_dir=DIR
  python -m mlpvision.prepare imagenet21k/p --manual_dir=gs://BUCKET/DIR --data_dir=gs://BUCKET/DIR \\
    --beam_pipeline_options=runner=DataflowRunner,project=PROJECT,region=REGION,temp_location=gs://BUCKET/tmp

Download the archives of imagenet2012, imagenet21k/{fall11,winter21,p}, ade20k and coco2017_instances by hand into
--manual_dir; they are checked first. tfds downloads its other datasets itself.

imagenet21k, ade20k and coco2017_instances are checked and written by --processes processes. If they are interrupted,
the same command continues.
"""

import os

from absl import flags

from mlpvision import commands
from mlpvision.errors import UserError

_MANUAL_DIR = commands.define_path(
  "manual_dir", None, "The directory of archives downloaded by hand; default: DATA_DIR/downloads/manual."
)
_DATA_DIR = commands.define_path(
  "data_dir", None, "The directory of datasets; default: $TFDS_DATA_DIR, or ~/tensorflow_datasets."
)
_PROCESSES = flags.DEFINE_integer(
  "processes",
  None,
  "Processes that check and write, of up to 1.5 GB each; default: one for each core.",
  lower_bound=1,
)
_BEAM = flags.DEFINE_string(
  "beam_pipeline_options",
  None,
  "Let Apache Beam check and write, with these options, separated by commas, as tfds's flag of this name.",
)


def main(argv: list[str]) -> None:
  """Checks, prepares, and prints the flags for training."""
  if len(argv) != 2:
    raise UserError("name one dataset: python -m mlpvision.prepare imagenet2012 --manual_dir=DIR --data_dir=DIR")
  from mlpvision.prepare import preparation

  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  flags_to_use = preparation.prepare(
    argv[1],
    _MANUAL_DIR.value,
    _DATA_DIR.value,
    processes=_PROCESSES.value or cores,
    beam_pipeline_options=_BEAM.value,
  )
  print(f"to train on it:\n  {flags_to_use}")


if __name__ == "__main__":
  commands.run(main)
