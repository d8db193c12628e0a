"""The task's metrics on a split, exact for any batch size: padding is masked, and sums are divided once at the end."""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from mlpvision import tasks
from mlpvision.errors import UserError
from mlpvision.evaluate import one_pass


class Accuracy(one_pass.Sums):
  """Evaluates parameters on one split."""

  multi_label = True

  @staticmethod
  def metrics(entry: Mapping[str, Any], config: ml_collections.ConfigDict) -> dict[str, str]:
    """The metrics of the task."""
    return tasks.of(config).metrics(config)

  def partial(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The task's sums over a batch."""
    return tasks.of(self.config).partial(outputs, batch, self.config.loss, self.classes)

  def run(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """{metric: value} of the task's metrics, and "images", the number of images with a label."""
    totals = self.totals(variables)
    if not totals["images"]:
      raise UserError(f"{self.split.name}: none of the {len(self.split):,} images has a label")
    return {**tasks.of(self.config).scores(totals), "images": int(totals["images"])}
