"""Non-maximum suppression, exact, with static shapes.

Greedy suppression keeps box j if no kept box with a higher score overlaps it too much. That has one solution, which
iterating the condition from "all are kept" reaches: round k settles at least the first k boxes, in practice nearly all
of them, so that a few products of a vector and a matrix replace the loop over boxes.
"""

import jax
import jax.numpy as jnp

from mlpvision.models.detection import boxes as boxes_lib


@jax.jit
def nms(boxes: jax.Array, scores: jax.Array, threshold: float, is_valid: jax.Array) -> jax.Array:
  """The boxes that greedy suppression keeps (mmcv's `nms`); takes no gradient.

  Args:
    boxes: [N, 4].
    scores: [N]; of equal scores the first box is better.
    threshold: boxes whose IoU with a better kept one is greater are suppressed.
    is_valid: bool [N]; the others are not kept and suppress none.

  Returns:
    bool [N], in the order given.
  """
  boxes, scores = jax.lax.stop_gradient((boxes, scores))
  index = jnp.arange(scores.shape[0])
  is_better = scores[:, None] > scores
  is_better |= (scores[:, None] == scores) & (index[:, None] < index)
  # mmcv divides by any union; two empty boxes do not overlap.
  overlaps = boxes_lib.iou(boxes, boxes, epsilon=jnp.finfo(jnp.float32).tiny) > threshold
  suppresses = (is_better & overlaps & is_valid[:, None]).astype(jnp.float32)

  def kept(previous):
    # Zeros and ones: exact at any precision of products.
    return is_valid & (previous.astype(jnp.float32) @ suppresses == 0)

  def is_unsettled(state):
    return (state[0] != state[1]).any()

  state = (is_valid, kept(is_valid))
  return jax.lax.while_loop(is_unsettled, lambda state: (state[1], kept(state[1])), state)[1]


def apart(boxes: jax.Array, groups: jax.Array, is_valid: jax.Array) -> jax.Array:
  """Moves each group of boxes by its number times (the greatest coordinate + 1), so that groups do not overlap.

  As mmcv's `batched_nms` does, since shifted boxes also round as its own.

  Args:
    boxes: [..., 4], any shape.
    groups: int [...], from 0: of levels or classes.
    is_valid: bool [...]; the others' coordinates do not count.

  Returns:
    float32 [..., 4].
  """
  boxes = boxes.astype(jnp.float32)
  greatest = jnp.max(boxes, initial=-jnp.inf, where=is_valid[..., None])
  step = jnp.where(is_valid.any(), greatest + 1, 0)
  return boxes + (groups.astype(jnp.float32) * step)[..., None]


def batched_nms(
  boxes: jax.Array, scores: jax.Array, groups: jax.Array, threshold: float, is_valid: jax.Array
) -> jax.Array:
  """`nms` within each group (mmcv's `batched_nms`).

  Args:
    boxes: [G, N, 4], of each group; or [N, 4], mixed.
    scores: [G, N] or [N].
    groups: int [G, N] or [N], the group of each box.
    threshold: as of `nms`.
    is_valid: bool [G, N] or [N].

  Returns:
    bool [G, N] or [N]. Rows are taken one after the other: a matrix of [N, N] at a time.
  """
  boxes = apart(boxes, groups, is_valid)
  if boxes.ndim == 2:
    return nms(boxes, scores, threshold, is_valid)
  return jax.lax.map(lambda group: nms(group[0], group[1], threshold, group[2]), (boxes, scores, is_valid))


def multiclass_nms(
  boxes: jax.Array,
  scores: jax.Array,
  is_valid: jax.Array,
  *,
  score_threshold: float,
  iou_threshold: float,
  count: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """An image's detections (mmdetection's `multiclass_nms`).

  Args:
    boxes: [N, 4 K], a box for each class.
    scores: [N, K], probabilities without the background's.
    is_valid: bool [N].
    score_threshold: only greater scores count.
    iou_threshold: of `nms` within each class.
    count: detections of an image.

  Returns:
    Boxes float32 [count, 4], scores float32 [count], labels int32 [count], best first; of equal scores the first box
    and then the first class. After the last detection boxes and scores are 0 and labels -1.
  """
  number, classes = scores.shape
  boxes = boxes.astype(jnp.float32).reshape(number, classes, 4)
  scores = scores.astype(jnp.float32)
  is_candidate = (scores > score_threshold) & is_valid[:, None]
  groups = jnp.broadcast_to(jnp.arange(classes)[:, None], (classes, number))
  kept = batched_nms(boxes.swapaxes(0, 1), scores.T, groups, iou_threshold, is_candidate.T).T
  ranked = jnp.pad(jnp.where(kept, scores, -jnp.inf).reshape(-1), (0, count), constant_values=-jnp.inf)
  scores, index = jax.lax.top_k(ranked, count)
  is_found = scores > -jnp.inf
  padded = jnp.pad(boxes.reshape(-1, 4), ((0, 1), (0, 0)))  # the last row is that of no detection
  boxes = padded[jnp.where(is_found, index, number * classes)]
  return boxes, jnp.where(is_found, scores, 0), jnp.where(is_found, index % classes, -1).astype(jnp.int32)
