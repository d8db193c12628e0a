"""The task's metrics on a split, exact for any batch size: padding is masked, and sums are divided once at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
import jax
import ml_collections
import numpy as np

from mlpvision import augment, tasks
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate import one_pass


class Accuracy:
  """Evaluates parameters on one split. classes: int [k], the model's class for each label (see `classes.match`)."""

  @staticmethod
  def metrics(entry: Mapping[str, Any], config: ml_collections.ConfigDict) -> dict[str, str]:
    """The metrics of the task."""
    return tasks.of(config).METRICS

  def __init__(
    self,
    model: nn.Module,
    split: datasets.Split,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    classes: Sequence[int] | np.ndarray | None = None,
  ) -> None:
    self._split, self._config, self._mesh, self._task = split, config, mesh, tasks.of(config)

    def sums(params, batch):
      outputs = model.apply({"params": params}, augment.normalize(batch["image"], config.data.mean, config.data.std))
      return self._task.partial(outputs, batch, config.loss, classes)

    self._sums = one_pass.jit(sums, mesh)

  def run(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """{metric: value} of the task's METRICS, and "images", the number of images with a label."""
    totals = None
    for sums in one_pass.over(self._split, self._config, self._mesh, lambda batch: self._sums(params, batch)):
      sums = jax.tree.map(_widen, sums)
      totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
    if not totals["images"]:
      raise UserError(f"{self._split.name}: none of the {len(self._split):,} images has a label")
    return {**self._task.scores(totals), "images": int(totals["images"])}


def _widen(x):
  """Casts to float64 or int64, so that the sum over all batches is exact."""
  return np.asarray(x, np.float64 if np.issubdtype(x.dtype, np.floating) else np.int64)
