"""The region proposal network (Ren et al., arXiv 1506.01497), as mmdetection's `RPNHead`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models.detection import anchors, assign, boxes as boxes_lib, nms, sample

STRIDES = (4, 8, 16, 32, 64)
_RATIOS = 3  # anchors at a cell
_ASSIGNER = dict(positive=0.7, negative=0.3, min_positive=0.3, low_quality=True)
_NMS_THRESHOLD = 0.7


class Proposals(NamedTuple):
  """boxes: float32 [..., n, 4], best first; is_valid: bool [..., n], False in the slots that are left."""

  boxes: jax.Array
  is_valid: jax.Array


class RPNHead(nn.Module):
  """A 3x3 convolution, and for each anchor a logit and four deltas; shared by all levels.

  dtype: of the computation; the results are float32.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, levels: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    """levels: [B, H_i, W_i, C] -> logits [B, H_i * W_i * 3] and deltas [B, H_i * W_i * 3, 4] of each level."""
    options = dict(kernel_init=nn.initializers.normal(0.01), dtype=self.dtype)
    conv = nn.Conv(levels[0].shape[-1], (3, 3), padding=1, **options, name="rpn_conv")
    classify = nn.Dense(_RATIOS, **options, name="rpn_cls")
    regress = nn.Dense(4 * _RATIOS, **options, name="rpn_reg")
    logits, deltas = [], []
    for x in levels:
      x = nn.relu(conv(x))
      logits.append(classify(x).astype(jnp.float32).reshape(x.shape[0], -1))
      deltas.append(regress(x).astype(jnp.float32).reshape(x.shape[0], -1, 4))
    return logits, deltas


def propose(
  logits: Sequence[jax.Array],
  deltas: Sequence[jax.Array],
  shapes: Sequence[tuple[int, int]],
  sizes: jax.Array,
  padded: jax.Array,
  *,
  pre_nms: int,
  count: int,
) -> Proposals:
  """The best boxes of each image (`RPNHead.predict`); takes no gradient.

  Of each level, the `pre_nms` best anchors are moved by their deltas, clipped to the image and suppressed above an IoU
  of 0.7. Empty boxes are dropped, as in mmdetection 3; 2.11 kept them.

  Args:
    logits, deltas: of `RPNHead`.
    shapes: (rows, columns) of the levels.
    sizes: int [B, 2], of the images.
    padded: int [B, 2], the sizes that they are padded to; cells beyond propose nothing.
    pre_nms: of each level.
    count: of each image.
  """
  levels = anchors.per_level(shapes, STRIDES)
  slots = min(pre_nms, max(len(level) for level in levels))

  def of_level(logits, deltas, columns, stride, is_valid, size):
    number = min(slots, len(logits))
    # Among saturated probabilities the first is better, not the one with the greater logit.
    scores, index = jax.lax.top_k(jnp.where(is_valid, nn.sigmoid(logits), -1), number)
    boxes = boxes_lib.decode(anchors.at(index, columns, stride), deltas[index], size=size)
    is_valid = (scores >= 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    rest = (0, slots - number)
    return jnp.pad(boxes, (rest, (0, 0))), jnp.pad(scores, rest, constant_values=-1), jnp.pad(is_valid, rest)

  def of_image(logits, deltas, size, padded):
    is_valid = anchors.valid(levels, shapes, STRIDES, padded, size)
    parts = [
      of_level(*level, shape[1], stride, valid, size)
      for *level, shape, stride, valid in zip(logits, deltas, shapes, STRIDES, is_valid, strict=True)
    ]
    boxes, scores, is_valid = (jnp.stack(part) for part in zip(*parts, strict=True))
    groups = jnp.broadcast_to(jnp.arange(len(levels))[:, None], scores.shape)
    kept = nms.batched_nms(boxes, scores, groups, _NMS_THRESHOLD, is_valid)
    scores = jnp.pad(jnp.where(kept, scores, -1).reshape(-1), (0, max(0, count - scores.size)), constant_values=-1)
    scores, index = jax.lax.top_k(scores, count)
    boxes = boxes.reshape(-1, 4)[jnp.minimum(index, boxes.size // 4 - 1)]
    return Proposals(jnp.where(scores[:, None] >= 0, boxes, 0), scores >= 0)

  return jax.vmap(of_image)(*jax.lax.stop_gradient((list(logits), list(deltas))), sizes, padded)


def losses(
  keys: jax.Array,
  logits: Sequence[jax.Array],
  deltas: Sequence[jax.Array],
  shapes: Sequence[tuple[int, int]],
  sizes: jax.Array,
  padded: jax.Array,
  boxes: jax.Array,
  labels: jax.Array,
  *,
  samples: int = 256,
  beta: float = 0.0,
  allowed_border: int = -1,
) -> tuple[dict[str, jax.Array], jax.Array]:
  """({"rpn_cls", "rpn_bbox": sums over the sampled anchors of all images}, their number) (`RPNHead.loss_by_feat`).

  Both losses are divided by that number: the binary cross-entropy of sampled anchors, and L1 of the deltas of positive
  ones, which are at most half.

  Args:
    keys: of jax.random, [B].
    logits, deltas, shapes, sizes, padded: as of `propose`.
    boxes: float32 [B, G, 4], objects.
    labels: int [B, G], negative where there is no object.
    samples: of an image.
    beta: below this difference, the box loss is quadratic (smooth L1); 0 for L1.
    allowed_border: of `anchors.valid`.
  """
  levels = anchors.per_level(shapes, STRIDES)
  every = jnp.concatenate(levels)

  def of_image(key, logits, deltas, size, padded, boxes, labels):
    is_valid = jnp.concatenate(anchors.valid(levels, shapes, STRIDES, padded, size, allowed_border))
    assigned, _ = assign.by_max_iou(every, is_valid, boxes, labels, **_ASSIGNER)
    is_drawn = sample.drawn(key, assigned, samples, 0.5)
    is_positive = is_drawn & (assigned >= 0)
    cls = binary_cross_entropy(logits, is_positive)
    targets = boxes_lib.encode(every, boxes[jnp.maximum(assigned, 0)])
    difference = jnp.where(is_positive[:, None], deltas - targets, 0)
    return jnp.where(is_drawn, cls, 0).sum(), smooth_l1(difference, beta).sum(), is_drawn.sum(dtype=jnp.float32)

  per_image = jax.vmap(of_image)(
    keys, jnp.concatenate(logits, 1), jnp.concatenate(deltas, 1), sizes, padded, boxes, labels
  )
  cls, bbox, number = (x.sum() for x in per_image)
  return {"rpn_cls": cls, "rpn_bbox": bbox}, number


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Of the sigmoid of logits and targets from 0 to 1, or bool; elementwise, float32."""
  logits = logits.astype(jnp.float32)
  return nn.softplus(logits) - logits * targets.astype(jnp.float32)


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
  """Smooth L1 of differences, elementwise; quadratic below beta, L1 if it is 0."""
  size = jnp.abs(difference)
  if beta == 0:
    return size
  return jnp.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)
