"""Draws a contact sheet of augmented training images, with their targets: classes, label maps in colors, or objects.

python -m mlpvision.preview --config=configs/s2mlp_wide.py --output=preview.png
"""

from absl import flags
from ml_collections import config_flags

from mlpvision import commands, config as config_lib
from mlpvision.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A config file, see configs/.", lock_config=True)
_OUTPUT = commands.define_path("output", "preview.png", "The file to write.")
_IMAGES = flags.DEFINE_integer("images", 48, "Number of training images to show; must be even.", lower_bound=2)
_STEP = flags.DEFINE_integer("step", 0, "The training step whose batch is shown.", lower_bound=0)


def main(argv: list[str]) -> None:
  """Makes a small batch with the loader and the augmentation of training."""
  del argv
  config = commands.read_config(_CONFIG)
  if _IMAGES.value % 2:
    raise UserError(f"--images={_IMAGES.value}: must be even, because mixup and cutmix work on pairs")
  config.data.batch_size, config.accumulation_steps, config.data.workers = _IMAGES.value, 1, 0
  config_lib.check(config)
  from mlpvision.data import datasets
  from mlpvision.training import pictures

  split = datasets.of(config, config.data.train_split, training=True)
  try:
    pictures.samples(split, config, _OUTPUT.value, images=_IMAGES.value, step=_STEP.value)
  except OSError as error:
    raise UserError(f"cannot write {_OUTPUT.value}: {error}") from error
  print(f"{_IMAGES.value} images of {split.name}: {_OUTPUT.value}")


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  commands.run(main)
