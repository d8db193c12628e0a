"""Calibration: how well a classifier's confidence predicts its accuracy."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mlpvision import tasks
from mlpvision.evaluate import one_pass


class Calibration(one_pass.Sums):
  """The expected calibration error (Guo et al., arXiv 1706.04599) on a split, with 10 bins of confidence."""

  @staticmethod
  def metrics(entry: Mapping[str, Any], config: ml_collections.ConfigDict) -> dict[str, str]:
    """The names of the results, and whether a larger value ("max") or a smaller one ("min") is better."""
    return {"ece": "min"}

  def partial(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """{"gaps": sum of hit - confidence of each bin, "images"} of a batch."""
    logits = outputs if self.classes is None else outputs[:, jnp.asarray(self.classes)]
    probabilities = tasks.of(self.config).probabilities(logits, self.config.loss)
    confidence, hit = probabilities.max(-1), probabilities.argmax(-1) == batch["label"]
    gap = jnp.where(batch["mask"], hit - confidence, 0.0)  # the mask is False for padding
    bins = jnp.minimum((confidence * 10).astype(int), 9)
    return {"gaps": jnp.zeros(10).at[bins].add(gap), "images": batch["mask"].sum()}

  def run(self, variables: Mapping[str, Any]) -> dict[str, float]:
    """{"ece": float in [0, 1]} of these variables."""
    totals = self.totals(variables)
    return {"ece": float(np.abs(totals["gaps"]).sum() / totals["images"])}
