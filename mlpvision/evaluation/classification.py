"""Exact top-1, top-5 and loss over a split: padded rows are masked, sums are divided once at the end."""

import jax
import jax.numpy as jnp

from mlpvision import augment, sharding
from mlpvision.data import loader
from mlpvision.training import losses


class Evaluator:
  """Evaluates parameters on one split; compiled once."""

  def __init__(self, model, split, config, mesh):
    self._split, self._config, self._mesh = split, config, mesh
    self._sums = jax.jit(make_eval_step(model, config.data.mean, config.data.std, config.loss))

  def run(self, params):
    """{"top1", "top5", "loss"} as means over the split's images, and "images", their number."""
    processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
    batches = loader.eval_batches(self._split, self._config, device_count=sharding.batch_parts(self._mesh), **processes)
    totals = {"top1": 0, "top5": 0, "loss": 0.0, "images": 0}
    for batch in sharding.put_batches(batches, self._mesh):
      sums = jax.device_get(self._sums(params, batch))
      totals = {name: totals[name] + sums[name].item() for name in totals}
    images = totals.pop("images")
    return {**{name: total / images for name, total in totals.items()}, "images": images}


def make_eval_step(model, mean, std, loss_name):
  """The function (params, batch) -> sums over the rows whose mask is True: top1, top5, loss, images."""

  def eval_step(params, batch):
    logits = model.apply({"params": params}, augment.normalize(batch["image"], mean, std))
    labels, mask = batch["label"], batch["mask"]
    _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    hits = (best == labels[:, None]) & mask[:, None]
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return {
      "top1": hits[:, 0].sum(),
      "top5": hits.sum(),
      "loss": jnp.where(mask, losses.LOSSES[loss_name](logits, targets), 0.0).sum(),
      "images": mask.sum(),
    }

  return eval_step
