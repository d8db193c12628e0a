"""Which classes are taken for which."""

import jax
import numpy as np

from mlpvision import augment, sharding
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate import one_pass
from mlpvision.trained import Trained


def count(trained: Trained, split: datasets.Split) -> np.ndarray:
  """The confusion matrix of a `trained.Trained` on a dataset with the same classes, on one process.

  Args:
    trained: its config names the evaluation's batch size and the preprocessing.
    split: a `datasets.Split`.

  Returns:
    int64 [K, K], row: the true class, column: the predicted one.

  Raises:
    UserError: other classes, several labels for an image, or a broken image.
  """
  if split.multi_label or split.class_names != trained.class_names:
    raise UserError(f"{split.name}: a confusion matrix needs the weights' own classes, one for each image")
  preprocessing, size = trained.preprocessing, len(trained.class_names)

  @jax.jit
  def pairs(batch):
    images = augment.normalize(batch["image"], preprocessing.mean, preprocessing.std)
    return batch["label"], trained.model.apply({"params": trained.params}, images).argmax(-1), batch["mask"]

  counts = np.zeros((size, size), np.int64)
  for labels, found, mask in one_pass.over(split, trained.config, sharding.make_mesh(devices=jax.devices()[:1]), pairs):
    np.add.at(counts, (labels[mask], found[mask]), 1)
  return counts
