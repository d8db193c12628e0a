"""Pictures of a run: training images as the model gets them, and the confusion matrix."""

from collections.abc import Mapping
from typing import Any

from etils import epath
import jax
import ml_collections
import numpy as np

from mlpvision import tasks, workdir as workdir_lib
from mlpvision.data import datasets, loader
from mlpvision.evaluate import confusion as confusion_lib
from mlpvision.evaluate.accuracy import Accuracy
from mlpvision.reporting import contact_sheet, curves, detections, label_maps
from mlpvision.training import step as step_lib
from mlpvision.training.setup import Setup

_MOST_CLASSES = 1000  # of a confusion matrix that can be looked at


def samples(
  split: datasets.Split, config: ml_collections.ConfigDict, path: epath.PathLike, *, images: int = 48, step: int = 0
) -> None:
  """Writes a contact sheet of augmented training images with their targets, as a PNG. Raises OSError.

  It is the batch of a step, if data.batch_size were `images`, an even number.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.data.batch_size, config.accumulation_steps, config.data.workers = images, 1, 0
  task = tasks.of(config)
  batch = next(loader.train_batches(split, config, start_step=step))
  key, _ = step_lib.step_keys(config.seed, step)
  augmented = jax.jit(lambda key, batch: task.augmented(key, batch, len(split.class_names), config))
  found, targets = jax.device_get(augmented(key, batch))
  found = found * np.asarray(config.data.std) + np.asarray(config.data.mean)
  targets = [jax.tree.map(lambda x, i=i: x[i], targets) for i in range(len(found))]
  captions = [task.caption(target, split.class_names) for target in targets]
  if task is tasks.segmentation:
    found = [label_maps.overlay(x, task.label_map(target)) for x, target in zip(found, targets, strict=True)]
  elif task is tasks.detection:
    objects = [(target["boxes"], target["labels"], target.get("masks")) for target in targets]
    found = [detections.draw(np.clip(x, 0, 1), *of_image) for x, of_image in zip(found, objects, strict=True)]
  title = f"{split.name}, {found[0].shape[0]} x {found[0].shape[1]}, augmented"
  contact_sheet.draw(path, found, captions, title=title)


def confusion(setup: Setup, variables: Mapping[str, Any], path: epath.PathLike) -> bool:
  """Writes the confusion matrix of the evaluation split, as a PNG; every process must call it, and process 0 writes.

  Returns whether there is one: not of detectors, of images with several labels, or of more than 1,000 classes.
  """
  split = setup.eval_split
  if split.task == "detection" or split.multi_label or len(split.class_names) > _MOST_CLASSES:
    return False
  counter = Accuracy if split.task == "segmentation" else confusion_lib.Confusion
  counts = counter(setup.model, split, setup.config, setup.mesh).totals(variables)["confusion"]
  if jax.process_index() == 0:
    with workdir_lib.readable_errors(path):
      workdir_lib.replace(path, [curves.to_png(confusion_lib.draw(counts, split))])
  return True
