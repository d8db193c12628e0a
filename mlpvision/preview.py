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
  import jax
  import numpy as np

  from mlpvision import tasks
  from mlpvision.data import datasets, loader
  from mlpvision.reporting import contact_sheet, detections, label_maps
  from mlpvision.training import step as step_lib

  task = tasks.of(config)
  split = datasets.of(config, config.data.train_split, training=True)
  batch = next(loader.train_batches(split, config, start_step=_STEP.value))
  key, _ = step_lib.step_keys(config.seed, _STEP.value)
  augmented = jax.jit(lambda key, batch: task.augmented(key, batch, len(split.class_names), config))
  images, targets = jax.device_get(augmented(key, batch))
  images = images * np.asarray(config.data.std) + np.asarray(config.data.mean)
  targets = [jax.tree.map(lambda x, i=i: x[i], targets) for i in range(len(images))]
  captions = [task.caption(target, split.class_names) for target in targets]
  if task is tasks.segmentation:
    images = [label_maps.overlay(x, task.label_map(target)) for x, target in zip(images, targets, strict=True)]
  elif task is tasks.detection:
    objects = [(target["boxes"], target["labels"], target.get("masks")) for target in targets]
    images = [detections.draw(np.clip(x, 0, 1), *of_image) for x, of_image in zip(images, objects, strict=True)]
  title = f"{split.name}, {images[0].shape[0]} x {images[0].shape[1]}, augmented"
  try:
    contact_sheet.draw(_OUTPUT.value, images, captions, title=title)
  except OSError as error:
    raise UserError(f"cannot write {_OUTPUT.value}: {error}") from error
  print(f"{_IMAGES.value} images of {split.name}: {_OUTPUT.value}")


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  commands.run(main)
