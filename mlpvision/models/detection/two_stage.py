"""Mask R-CNN (arXiv 1703.06870) and Cascade Mask R-CNN (arXiv 1906.09756) on the maps of a backbone, as mmdetection's.

Everything has static shapes: an image has a fixed number of proposals, RoIs and detections, of which masks say which
count. What decides (overlaps, decoding, suppression) is float32 and takes no gradient.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import base, canvas, layers, pyramid
from mlpvision.models.detection import box_head, boxes as boxes_lib, mask_head, nms, rpn
from mlpvision.models.detection.roi_align import multilevel_roi_align
from mlpvision.models.heads.fpn import FPN

# The originals pad every image to a multiple of it, with zeros that their norms see.
PADDING = 32
_NMS_THRESHOLD = 0.5


class Stage(NamedTuple):
  """A box head of the cascade, or the only one.

  iou: least overlap of a positive; stds: of the deltas; weight: of its losses.
  """

  iou: float
  stds: tuple[float, float, float, float]
  weight: float


class Losses(NamedTuple):
  """What a detector returns in training: sums over the batch, and the numbers that the losses divide them by.

  sums: {name of a loss: float32 []}, with the stage's weight.
  counts: {"rpn": float32 [], sampled anchors; "roi", sampled RoIs, and "mask", positive ones, of each stage "s0.roi"}.
  correct: {name: float32 []}, of the sampled RoIs, those whose class is right.
  """

  sums: dict[str, jax.Array]
  counts: dict[str, jax.Array]
  correct: dict[str, jax.Array]


class Detections(NamedTuple):
  """What a detector returns in evaluation, best first.

  Attributes:
    boxes: float32 [B, n, 4], in pixels of the images given.
    scores: float32 [B, n].
    labels: int32 [B, n], -1 where there is no detection.
    masks: float32 [B, n, 28, 28], probabilities of the detection's class in the frame of its box; None without masks.
  """

  boxes: jax.Array
  scores: jax.Array
  labels: jax.Array
  masks: jax.Array | None


class TwoStage(nn.Module):
  """A backbone, a feature pyramid, region proposals, and one box head and mask head for each stage.

  Attributes:
    backbone: without a classifier.
    num_classes: without the background.
    masks: whether there are mask heads; without, this is Faster R-CNN.
    channels: of the feature pyramid.
    head_dim: of the box head's layers.
    train_proposals, test_proposals: of an image.
    pre_nms: best anchors of a level that are considered, in training and in evaluation.
    rpn_samples, roi_samples: anchors and RoIs of an image that the losses are computed of.
    detections: of an image, at most; score_threshold: of a detection.
    dtype: of the computation; parameters, logits and boxes are float32.
  """

  STAGES: ClassVar[tuple[Stage, ...]]
  IS_CASCADE: ClassVar[bool]
  any_size: ClassVar[bool] = True

  backbone: base.Backbone
  num_classes: int
  masks: bool = True
  channels: int = 256
  head_dim: int = 1024
  train_proposals: int = 1000
  test_proposals: int = 1000
  pre_nms: tuple[int, int] = (2000, 1000)
  rpn_samples: int = 256
  roi_samples: int = 512
  detections: int = 100
  score_threshold: float = 0.05
  dtype: Any = jnp.float32

  def setup(self) -> None:
    self.pyramid = pyramid.Pyramid(self.backbone.feature_strides, self.backbone.map_norm, self.dtype)
    self.neck = FPN(self.channels, dtype=self.dtype)
    self.rpn_head = rpn.RPNHead(self.dtype)
    convs, fcs = (4, 1) if self.IS_CASCADE else (0, 2)
    boxes = [box_head.BoxHead(self.num_classes, convs, fcs, self.head_dim, self.dtype) for _ in self.STAGES]
    masks = [mask_head.MaskHead(self.num_classes, self.dtype) for _ in self.STAGES]
    # A cascade's heads have numbers in their names.
    self.bbox_head = boxes if self.IS_CASCADE else boxes[0]
    if self.masks:
      self.mask_head = masks if self.IS_CASCADE else masks[0]

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    sizes: jax.Array | None = None,
    objects: Mapping[str, jax.Array] | None = None,
  ) -> Losses | Detections:
    """`Losses` in training, otherwise `Detections`.

    Args:
      images: float [B, H, W, 3], normalized, in the top left corner of a canvas and zero beyond.
      train: whether to compute losses.
      sizes: int [B, 2], (height, width) of each image, which is then seen as if it were alone, padded with zeros to
        multiples of 32. None: the canvas's.
      objects: in training, "boxes" float32 [B, G, 4] in pixels, "labels" int [B, G], -1 where there is no object, and
        the masks of `mask_head.loss`.
    """
    images = canvas.padded(images, PADDING)
    if sizes is None:
      sizes = jnp.full((len(images), 2), jnp.asarray(images.shape[1:3]))
    maps = self.maps(images, train, sizes)
    levels = self.neck(maps, self.cells(sizes)[: len(maps)])
    return self.losses(levels, sizes, objects) if train else self.detect(levels, sizes)

  def maps(self, images: jax.Array, train: bool, sizes: jax.Array) -> tuple[jax.Array, ...]:
    """The backbone's maps at strides 4, 8, 16 and 32, each through its norm."""
    padded = _padded(sizes)
    return self.pyramid(self.backbone.features(images, train=train, sizes=padded), padded)

  def cells(self, sizes: jax.Array) -> list[jax.Array]:
    """int [B, 2] for each level: its valid rows and columns."""
    return [canvas.cells(_padded(sizes), stride) for stride in rpn.STRIDES]

  def losses(
    self,
    levels: tuple[jax.Array, ...],
    sizes: jax.Array,
    objects: Mapping[str, jax.Array],
    proposals: rpn.Proposals | None = None,
  ) -> Losses:
    """`Losses` of the levels of the feature pyramid, [B, H_i, W_i, C]; proposals: others than the head's own."""
    keys = layers.keys_of_rows(self.make_rng("dropout"), len(sizes))
    boxes, labels = objects["boxes"], objects["labels"]
    logits, deltas = self.rpn_head(levels)
    of_rpn = logits, deltas, [x.shape[1:3] for x in levels], sizes, _padded(sizes)
    beta, border = (1 / 9, 0) if self.IS_CASCADE else (0.0, -1)
    sums, count = rpn.losses(
      _fold(keys, 0), *of_rpn, boxes, labels, samples=self.rpn_samples, beta=beta, allowed_border=border
    )
    counts, correct = {"rpn": count}, {}
    if proposals is None:
      proposals = rpn.propose(*of_rpn, pre_nms=self.pre_nms[0], count=self.train_proposals)
    for i, stage in enumerate(self.STAGES):
      rois = box_head.sample_rois(
        _fold(keys, 1 + i), proposals, boxes, labels, num_classes=self.num_classes, iou=stage.iou,
        low_quality=not self.IS_CASCADE, samples=self.roi_samples,
      )  # fmt: skip
      logits, deltas = self._boxes(i)(self._pooled(levels, rois.boxes, box_head.BINS, sizes), True, rois.is_filled)
      of_stage, counted = box_head.losses(logits, deltas, rois, boxes, stage.stds, decoded=self.IS_CASCADE)
      name = f"s{i}." if self.IS_CASCADE else ""
      counts[f"{name}roi"] = counted
      correct[f"{name}accuracy"] = (rois.is_filled & (logits.argmax(-1) == rois.labels)).sum(dtype=jnp.float32)
      if self.masks:
        first = jax.tree.map(lambda x: x[:, : max(1, self.roi_samples // 4)], rois)  # where all positives are
        maps = self._masks(i)(self._pooled(levels, first.boxes, mask_head.BINS, sizes))
        of_stage["mask"], counts[f"{name}mask"] = mask_head.loss(maps, first, objects)
      sums |= {f"{name}{key}": stage.weight * value for key, value in of_stage.items()}
      if i + 1 < len(self.STAGES):
        refined = box_head.refined(logits, deltas, rois.boxes, stage.stds, sizes, rois.labels)
        proposals = rpn.Proposals(refined, rois.is_filled & ~rois.is_object)
    return Losses(sums, counts, correct)

  def detect(self, levels: tuple[jax.Array, ...], sizes: jax.Array) -> Detections:
    """`Detections` of the levels of the feature pyramid, [B, H_i, W_i, C]."""
    logits, deltas = self.rpn_head(levels)
    shapes = [x.shape[1:3] for x in levels]
    options = dict(pre_nms=self.pre_nms[1], count=self.test_proposals)
    proposals = rpn.propose(logits, deltas, shapes, sizes, _padded(sizes), **options)
    boxes, is_valid, total = proposals.boxes, proposals.is_valid, 0
    for i in range(len(self.STAGES)):
      if i:
        boxes = box_head.refined(logits, deltas, boxes, self.STAGES[i - 1].stds, sizes)
      logits, deltas = self._boxes(i)(self._pooled(levels, boxes, box_head.BINS, sizes))
      total += logits
    scores = nn.softmax(total / len(self.STAGES))[..., :-1]

    def of_image(boxes, deltas, scores, is_valid, size):
      decoded = boxes_lib.decode(boxes, deltas.reshape(len(deltas), -1), self.STAGES[-1].stds, size)
      limits = dict(score_threshold=self.score_threshold, iou_threshold=_NMS_THRESHOLD, count=self.detections)
      return nms.multiclass_nms(decoded, scores, is_valid, **limits)

    boxes, scores, labels = jax.vmap(of_image)(boxes, deltas, scores, is_valid, sizes)
    if not self.masks:
      return Detections(boxes, scores, labels, None)
    masks = 0
    for i in range(len(self.STAGES)):
      maps = jnp.moveaxis(self._masks(i)(self._pooled(levels, boxes, mask_head.BINS, sizes)), -1, 2)
      masks += nn.sigmoid(box_head.of_class(maps, jnp.maximum(labels, 0)))
    return Detections(boxes, scores, labels, masks / len(self.STAGES))

  def _boxes(self, stage):
    return self.bbox_head[stage] if self.IS_CASCADE else self.bbox_head

  def _masks(self, stage):
    return self.mask_head[stage] if self.IS_CASCADE else self.mask_head

  def _pooled(self, levels, boxes, bins, sizes):
    """RoIAlign on all levels but the last, which is the RPN's alone."""
    return multilevel_roi_align(tuple(levels[:-1]), boxes, bins, rpn.STRIDES[:-1], cells=tuple(self.cells(sizes)[:-1]))


class MaskRCNN(TwoStage):
  """Mask R-CNN: Swin's and AS-MLP's configs."""

  STAGES = (Stage(0.5, (0.1, 0.1, 0.2, 0.2), 1.0),)
  IS_CASCADE = False


class CascadeMaskRCNN(TwoStage):
  """Cascade Mask R-CNN with three stages: Swin's and AS-MLP's configs, whose box heads have four convolutions."""

  STAGES = (
    Stage(0.5, (0.1, 0.1, 0.2, 0.2), 1.0),
    Stage(0.6, (0.05, 0.05, 0.1, 0.1), 0.5),
    Stage(0.7, (0.033, 0.033, 0.067, 0.067), 0.25),
  )
  IS_CASCADE = True

  train_proposals: int = 2000


def _padded(sizes):
  return -(-sizes // PADDING) * PADDING


def _fold(keys, number):
  return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def means(sums: Mapping[str, jax.Array], counts: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """The losses under mmdetection's names, such as "loss_rpn_cls" and "s0.loss_bbox": sums over counts, see `Losses`."""
  found = {}
  for name, value in sums.items():
    stage, _, kind = name.rpartition(".")
    of = "rpn" if kind.startswith("rpn_") else "mask" if kind == "mask" else "roi"
    count = counts[f"{stage}.{of}" if stage else of]
    found[f"{stage}{'.' if stage else ''}loss_{kind}"] = value / jnp.maximum(count, 1)
  return found
