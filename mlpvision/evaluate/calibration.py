"""Whether a classifier's probabilities can be believed."""

import jax
import jax.numpy as jnp
import numpy as np

from mlpvision import augment, tasks
from mlpvision.errors import UserError
from mlpvision.evaluate import one_pass


class Calibration:
  """The expected calibration error (Guo et al., arXiv 1706.04599) on a split, in 10 bins of confidence."""

  @staticmethod
  def metrics(entry, config):
    """The smaller, the better."""
    return {"ece": "min"}

  def __init__(self, model, split, config, mesh, classes=None):
    if split.multi_label:
      raise UserError(f"calibration: {split.name} has several labels for an image")
    self._split, self._config, self._mesh = split, config, mesh

    def sums(params, batch):
      images = augment.normalize(batch["image"], config.data.mean, config.data.std)
      logits = model.apply({"params": params}, images)
      logits = logits if classes is None else logits[:, jnp.asarray(classes)]
      probabilities = tasks.of(config).probabilities(logits, config.loss)
      confidence, hit = probabilities.max(-1), probabilities.argmax(-1) == batch["label"]
      gap = jnp.where(batch["mask"], hit - confidence, 0.0)  # rows that fill the batch up do not count
      bins = jnp.minimum((confidence * 10).astype(int), 9)
      return jnp.zeros(10).at[bins].add(gap), batch["mask"].sum()

    self._sums = jax.jit(sums)

  def run(self, params):
    """{"ece": float in [0, 1]} of these parameters."""
    gaps, images = np.zeros(10), 0
    for batch_gaps, batch_images in one_pass.over(
      self._split, self._config, self._mesh, lambda batch: self._sums(params, batch)
    ):
      gaps, images = gaps + batch_gaps, images + batch_images
    return {"ece": float(np.abs(gaps).sum() / images)}
