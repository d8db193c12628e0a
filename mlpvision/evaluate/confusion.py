"""Which classes are taken for which."""

import jax
import jax.numpy as jnp
import numpy as np

from mlpvision import augment
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError
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
  data, size = trained.config.data, len(trained.class_names)

  @jax.jit
  def predicted(params, images):
    return trained.model.apply({"params": params}, augment.normalize(images, data.mean, data.std)).argmax(-1)

  counts = np.zeros((size, size), np.int64)
  for batch in loader.eval_batches(split, trained.config):
    found = np.asarray(predicted(trained.params, jnp.asarray(batch["image"])))
    np.add.at(counts, (batch["label"][batch["mask"]], found[batch["mask"]]), 1)
  return counts
