"""The confusion matrix of a classifier or of a segmenter."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np

from mlpvision import sharding, tasks
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate import one_pass
from mlpvision.evaluate.accuracy import Accuracy
from mlpvision.reporting import confusion
from mlpvision.trained import Trained


class Confusion(one_pass.Sums):
  """Counts images of a split with one label each by their true and predicted class."""

  def partial(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """{"confusion": int32 [K, K]} of a batch."""
    size = outputs.shape[-1]
    cells = batch["label"] * size + outputs.argmax(-1)
    counts = jnp.zeros(size**2, jnp.int32).at[cells].add(batch["mask"].astype(jnp.int32))
    return {"confusion": counts.reshape(size, size)}


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
  counter = Accuracy if trained.task is tasks.segmentation else Confusion
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return counter(trained.model, split, trained.config, mesh).totals(trained.variables)["confusion"]


def draw(counts: np.ndarray, split: datasets.Split) -> Figure:
  """The matrix, with the headline that it gives in the title; counts: as `count` returns them, of the whole split."""
  if split.task == "segmentation":
    score = tasks.segmentation.scores({"confusion": counts})["miou"]
    title = f"{split.name}: mIoU {score:.2%} of {len(split):,} images"
  else:
    title = f"{split.name}: top-1 {counts.trace() / counts.sum():.2%} of {counts.sum():,} images"
  return confusion.figure(counts, split.class_names, title, pixels=split.task == "segmentation")
