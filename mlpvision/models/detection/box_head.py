"""The box heads of two-stage detectors, the RoIs that they learn from, and their losses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models.batch_norm import BatchNorm
from mlpvision.models.detection import assign, boxes as boxes_lib, sample
from mlpvision.models.detection.rpn import Proposals, smooth_l1

BINS = 7  # of a RoI along each axis
_GIOU_WEIGHT = 10.0  # of the cascade's configs


class RoIs(NamedTuple):
  """The sampled RoIs of an image or, with a leading axis, of a batch.

  Attributes:
    boxes: float32 [n, 4].
    labels: int32 [n], the class of a positive, the number of classes for background and in empty slots.
    objects: int32 [n], the index of a positive's object, otherwise 0.
    is_positive, is_filled, is_object: bool [n]; is_object: the RoI is an object's own box.
  """

  boxes: jax.Array
  labels: jax.Array
  objects: jax.Array
  is_positive: jax.Array
  is_filled: jax.Array
  is_object: jax.Array


def sample_rois(
  keys: jax.Array,
  proposals: Proposals,
  boxes: jax.Array,
  labels: jax.Array,
  *,
  num_classes: int,
  iou: float,
  low_quality: bool,
  samples: int,
) -> RoIs:
  """Assigns objects to proposals, adds the objects themselves, and samples; a quarter positives at most.

  Positives are in the first `samples` // 4 slots.

  Args:
    keys: of jax.random, [B].
    proposals: of a batch.
    boxes: float32 [B, G, 4], objects.
    labels: int [B, G], negative where there is no object.
    num_classes: the label of background.
    iou: proposals that overlap no object as much are background.
    low_quality: of `assign.by_max_iou`.
    samples: of an image.
  """

  def of_image(key, proposals, boxes, labels):
    limits = dict(positive=iou, negative=iou, min_positive=iou, low_quality=low_quality)
    assigned, _ = assign.by_max_iou(proposals.boxes, proposals.is_valid, boxes, labels, **limits)
    candidates, assigned = sample.with_ground_truth(proposals.boxes, assigned, boxes, labels)
    slots = sample.slots(key, assigned, samples, 0.25)
    objects = jnp.where(slots.is_positive, assigned[slots.index], 0)
    found = jnp.where(slots.is_positive, labels[objects], num_classes)
    is_object = slots.is_filled & (slots.index < len(boxes))
    return RoIs(candidates[slots.index], found, objects, slots.is_positive, slots.is_filled, is_object)

  return jax.lax.stop_gradient(jax.vmap(of_image)(keys, proposals, boxes, labels))


class BoxHead(nn.Module):
  """Pooled RoIs -> logits and deltas (mmdetection's `ConvFCBBoxHead`; with two layers, `Shared2FCBBoxHead`).

  num_convs: 3x3 convolutions without bias, each with batch normalization and ReLU; num_fcs: layers after them.
  """

  num_classes: int
  num_convs: int = 0
  num_fcs: int = 2
  width: int = 1024
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool = False, is_filled: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """x: [..., 7, 7, C] -> float32 logits [..., K + 1], background's last, and deltas [..., K, 4].

    is_filled: bool [...], the RoIs that count in the statistics of batch normalization.
    """
    lead, of_statistics = x.shape[:-3], None
    x = x.reshape(-1, *x.shape[-3:])
    if is_filled is not None:
      of_statistics = is_filled.reshape(-1, 1, 1)
    for i in range(self.num_convs):
      x = _ConvNorm(x.shape[-1], self.dtype, name=f"shared_convs_{i}")(x, train, of_statistics)
    for i in range(self.num_fcs):
      axes, init = tuple(range(1, x.ndim)), nn.initializers.xavier_uniform()
      x = nn.DenseGeneral(self.width, axes, kernel_init=init, dtype=self.dtype, name=f"shared_fcs_{i}")(x)
      x = nn.relu(x)
    x, normal = x.astype(jnp.float32), nn.initializers.normal
    logits = nn.Dense(self.num_classes + 1, kernel_init=normal(0.01), name="fc_cls")(x)
    deltas = nn.Dense(4 * self.num_classes, kernel_init=normal(0.001), name="fc_reg")(x)
    return logits.reshape(*lead, -1), deltas.reshape(*lead, self.num_classes, 4)


class _ConvNorm(nn.Module):
  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x, train, mask):
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    x = nn.Conv(
      self.features, (3, 3), padding=1, use_bias=False, kernel_init=init, dtype=self.dtype, name="conv"
    )(x)  # fmt: skip
    return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train, mask))


def losses(
  logits: jax.Array, deltas: jax.Array, rois: RoIs, boxes: jax.Array, stds: Sequence[float], *, decoded: bool
) -> tuple[dict[str, jax.Array], jax.Array]:
  """({"cls", "bbox": sums over the RoIs of a batch}, the number of RoIs, by which both are divided).

  The cross-entropy of all filled RoIs, and of the positives' deltas for their class L1; or, `decoded`, ten times one
  minus the GIoU of the boxes that they make, which are not clipped to the image.

  Args:
    logits: float32 [B, n, K + 1].
    deltas: float32 [B, n, K, 4].
    rois: of a batch.
    boxes: float32 [B, G, 4], the objects.
    stds: of the deltas.
    decoded: `reg_decoded_bbox` of mmdetection.
  """
  cls = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, rois.labels[..., None], -1)[..., 0]
  own = of_class(deltas, jnp.minimum(rois.labels, deltas.shape[-2] - 1))
  targets = jnp.take_along_axis(boxes, rois.objects[..., None], 1)
  if decoded:
    # Elsewhere the targets are not meaningful, and their gradient need not be finite.
    targets = jnp.where(rois.is_positive[..., None], targets, rois.boxes)
    overlaps = boxes_lib.giou(boxes_lib.decode(rois.boxes, own, stds), targets)
    bbox = jnp.where(rois.is_positive, _GIOU_WEIGHT * (1 - overlaps), 0)
  else:
    difference = own - boxes_lib.encode(rois.boxes, targets, stds)
    bbox = smooth_l1(jnp.where(rois.is_positive[..., None], difference, 0), 0.0)
  sums = {"cls": jnp.where(rois.is_filled, cls, 0).sum(), "bbox": bbox.sum()}
  return sums, rois.is_filled.sum(dtype=jnp.float32)


def of_class(values: jax.Array, labels: jax.Array) -> jax.Array:
  """The values [..., K, *rest] of one class each: labels int [...] -> [..., *rest]."""
  index = labels.reshape(*labels.shape, *[1] * (values.ndim - labels.ndim))
  return jnp.take_along_axis(values, index, labels.ndim).squeeze(labels.ndim)


def refined(
  logits: jax.Array,
  deltas: jax.Array,
  boxes: jax.Array,
  stds: Sequence[float],
  sizes: jax.Array,
  labels: jax.Array | None = None,
) -> jax.Array:
  """The boxes of the next stage of a cascade (`refine_bboxes`): float32 [B, n, 4], clipped to the image.

  Args:
    logits, deltas: of `BoxHead`.
    boxes: float32 [B, n, 4], the RoIs.
    stds: of the deltas.
    sizes: int [B, 2], of the images.
    labels: int [B, n], the class whose deltas count; the most probable one where it is K, and without labels.
  """
  chosen, classes = logits[..., :-1].argmax(-1), deltas.shape[-2]
  if labels is not None:
    chosen = jnp.where(labels == classes, chosen, labels)
  own = of_class(deltas, chosen)
  decode = jax.vmap(lambda boxes, own, size: boxes_lib.decode(boxes, own, stds, size))
  return jax.lax.stop_gradient(decode(boxes, own, sizes))
