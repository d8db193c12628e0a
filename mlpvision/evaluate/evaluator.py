"""Exact top-1, top-5 and loss over a split: padded rows are masked, sums are divided once at the end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mlpvision import augment, sharding
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError
from mlpvision.training import losses


class Evaluator:
  """Evaluates parameters on one split; compiled once. `classes` as `make_eval_step` takes them."""

  def __init__(
    self,
    model: nn.Module,
    split: datasets.Split,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    classes: Sequence[int] | np.ndarray | None = None,
  ) -> None:
    self._split, self._config, self._mesh = split, config, mesh
    self._sums = jax.jit(make_eval_step(model, config.data.mean, config.data.std, config.loss, classes))

  def run(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """{"top1", "top5", "loss"} as means over the split's images, and "images", their number.

    Images without any label count nowhere. An image with several right classes is a hit where one of them is among the
    best one or five; its loss is to an even distribution over them.
    """
    processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
    batches = loader.eval_batches(self._split, self._config, device_count=sharding.batch_parts(self._mesh), **processes)
    totals = {"top1": 0, "top5": 0, "loss": 0.0, "images": 0}
    for batch in sharding.put_batches(batches, self._mesh):
      sums = jax.device_get(self._sums(params, batch))
      totals = {name: totals[name] + sums[name].item() for name in totals}
    images = totals.pop("images")
    if not images:
      raise UserError(f"{self._split.name}: none of its {len(self._split):,} images has a label")
    return {**{name: total / images for name, total in totals.items()}, "images": images}


def make_eval_step(
  model: nn.Module,
  mean: Sequence[float],
  std: Sequence[float],
  loss_name: str,
  classes: Sequence[int] | np.ndarray | None = None,
) -> Callable[[Mapping[str, Any], Mapping[str, jax.Array]], dict[str, jax.Array]]:
  """The function (params, batch) -> sums over the rows whose mask is True: top1, top5, loss, images.

  Args:
    model: its logits are [b, K].
    mean, std: of the normalisation.
    loss_name: a key of losses.LOSSES.
    classes: int [k], the classes of the model that the labels number, in that order; None: all K, as they are.
  """

  def eval_step(params, batch):
    logits = model.apply({"params": params}, augment.normalize(batch["image"], mean, std))
    if classes is not None:
      logits = logits[:, jnp.asarray(classes)]
    labels, mask = batch["label"], batch["mask"]
    right = labels if labels.ndim == 2 else jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
    _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    hits = jnp.take_along_axis(right, best, -1) & mask[:, None]
    targets = right / jnp.maximum(right.sum(-1, keepdims=True), 1)
    return {
      "top1": hits[:, 0].sum(),
      "top5": hits.any(-1).sum(),
      "loss": jnp.where(mask, losses.LOSSES[loss_name](logits, targets), 0.0).sum(),
      "images": mask.sum(),
    }

  return eval_step
