"""Assigns ground truth to anchors and proposals by their overlap."""

import jax
import jax.numpy as jnp

from mlpvision.models.detection import boxes

BACKGROUND = -1
IGNORED = -2


def by_max_iou(
  priors: jax.Array,
  is_valid: jax.Array,
  gt_boxes: jax.Array,
  gt_labels: jax.Array,
  *,
  positive: float,
  negative: float,
  min_positive: float,
  low_quality: bool,
) -> tuple[jax.Array, jax.Array]:
  """The object of each anchor or proposal (mmdetection's `MaxIoUAssigner`; crowds neither match nor ignore).

  A prior belongs to the object that it overlaps most, the first of equals, where that IoU is at least `positive`, and
  to the background where it is below `negative`. With `low_quality`, each object also takes all priors whose IoU is
  exactly its greatest, whatever else they would belong to; of several such objects the last wins.

  Args:
    priors: boxes [N, 4], anchors or proposals.
    is_valid: bool [N]; the others are ignored, and no object's greatest IoU.
    gt_boxes: boxes [G, 4], padded.
    gt_labels: int [G], negative where there is no object.
    positive: least IoU of a match.
    negative: IoU below which a prior is background; those between are ignored.
    min_positive: least greatest IoU for which an object takes its priors with `low_quality`.
    low_quality: mmdetection's `match_low_quality`.

  Returns:
    int32 [N], index of the object, BACKGROUND or IGNORED; float32 [N], the greatest IoU, 0 for invalid priors and
    without objects.
  """
  if gt_boxes.shape[0] == 0:
    return jnp.where(is_valid, BACKGROUND, IGNORED).astype(jnp.int32), jnp.zeros(priors.shape[0], jnp.float32)
  is_object = gt_labels >= 0
  overlaps = jnp.where(is_valid[:, None] & is_object, boxes.iou(priors, gt_boxes), -1)
  # Computed once: exact equality below must not depend on how each use would round.
  overlaps = jax.lax.optimization_barrier(overlaps)
  best = jnp.maximum(overlaps.max(axis=1), 0)
  found = jnp.where(best < negative, BACKGROUND, IGNORED)
  found = jnp.where(best >= positive, overlaps.argmax(axis=1), found)
  if low_quality:
    greatest = overlaps.max(axis=0, initial=-1)
    takes = (overlaps == greatest) & is_object & (greatest >= min_positive)
    last = jnp.where(takes, jnp.arange(gt_boxes.shape[0]), -1).max(axis=1)
    found = jnp.where(last >= 0, last, found)
  return jnp.where(is_valid, found, IGNORED).astype(jnp.int32), jnp.where(is_valid, best, 0)
