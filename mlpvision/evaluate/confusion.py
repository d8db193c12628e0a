"""The confusion matrix of a classifier or of a segmenter."""

import jax
import numpy as np

from mlpvision import augment, sharding, tasks
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate import one_pass
from mlpvision.evaluate.accuracy import Accuracy
from mlpvision.trained import Trained


def count(trained: Trained, split: datasets.Split) -> np.ndarray:
  """The number of images per true class (row) and predicted class (column), int64 [K, K]; on one process.

  Of a segmenter, the number of labeled pixels.

  trained must be from a run. Raises UserError for a detector, other classes, several labels per image, or a broken
  image.
  """
  if trained.task is tasks.detection:
    raise UserError("a confusion matrix is of a classifier or a segmenter, and these weights are a detector")
  if split.multi_label:
    raise UserError(f"{split.name}: a confusion matrix needs one label per image")
  split, _ = datasets.with_classes(split, trained.class_names, "the run")
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  if trained.task is tasks.segmentation:
    return Accuracy(trained.model, split, trained.config, mesh).totals(trained.variables)["confusion"]
  preprocessing, size = trained.preprocessing, len(trained.class_names)

  @jax.jit
  def pairs(batch):
    images = augment.normalize(batch["image"], preprocessing.mean, preprocessing.std)
    return batch["label"], trained.model.apply({"params": trained.params}, images).argmax(-1), batch["mask"]

  counts = np.zeros((size, size), np.int64)
  for labels, found, mask in one_pass.over(split, trained.config, mesh, pairs):
    np.add.at(counts, (labels[mask], found[mask]), 1)
  return counts
