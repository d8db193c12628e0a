"""Calibration: how well a classifier's confidence predicts its accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mlpvision import augment, tasks
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate import one_pass


class Calibration:
  """The expected calibration error (Guo et al., arXiv 1706.04599) on a split, with 10 bins of confidence."""

  @staticmethod
  def metrics(entry: Mapping[str, Any], config: ml_collections.ConfigDict) -> dict[str, str]:
    """The names of the results, and whether a larger value ("max") or a smaller one ("min") is better."""
    return {"ece": "min"}

  def __init__(
    self,
    model: nn.Module,
    split: datasets.Split,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    classes: Sequence[int] | np.ndarray | None = None,
  ) -> None:
    """classes: int [k], the model's class for each label; None if they are the same."""
    if split.multi_label:
      raise UserError(f"calibration: {split.name} has several labels per image")
    self._split, self._config, self._mesh = split, config, mesh

    def sums(params, batch):
      images = augment.normalize(batch["image"], config.data.mean, config.data.std)
      logits = model.apply({"params": params}, images)
      logits = logits if classes is None else logits[:, jnp.asarray(classes)]
      probabilities = tasks.of(config).probabilities(logits, config.loss)
      confidence, hit = probabilities.max(-1), probabilities.argmax(-1) == batch["label"]
      gap = jnp.where(batch["mask"], hit - confidence, 0.0)  # the mask is False for padding
      bins = jnp.minimum((confidence * 10).astype(int), 9)
      return jnp.zeros(10).at[bins].add(gap), batch["mask"].sum()

    self._sums = one_pass.jit(sums, mesh)

  def run(self, params: Mapping[str, Any]) -> dict[str, float]:
    """{"ece": float in [0, 1]} of these parameters."""
    gaps, images = np.zeros(10), 0
    for batch_gaps, batch_images in one_pass.over(
      self._split, self._config, self._mesh, lambda batch: self._sums(params, batch)
    ):
      gaps, images = gaps + batch_gaps, images + batch_images
    return {"ece": float(np.abs(gaps).sum() / images)}
