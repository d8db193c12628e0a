"""Object detection and instance segmentation: boxes, and masks if the model has them, of objects of K classes.

Boxes are x1, y1, x2, y2 in pixels. The rows of batches are in `data.detection_rows`; the scores, which need all
detections of a split at once, in `evaluate.average_precision`.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mlpvision import models
from mlpvision.data import detection_rows, host_masks, pixels, transforms
from mlpvision.errors import UserError, printable
from mlpvision.models.detection import two_stage
from mlpvision.tasks import detection_results, whole_image

NOUN = "a detector"

as_text, as_json = detection_results.as_text, detection_results.as_json
COLUMNS, table = detection_results.COLUMNS, detection_results.table

# pycocotools' figures, in its order; those of masks have "mask_" in place of "box_".
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
FIGURES += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")

LOSSES = ("softmax",)
# Fields of config.augment that are of classification or segmentation, and the values that turn them off.
_OTHERS = {"randaugment": "", "mixup": 0.0, "cutmix": 0.0, "random_erasing": 0.0, "photometric": False, "repeats": 1}


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The objects found in an image, best first.

  Attributes:
    boxes: float32 [n, 4], x1, y1, x2, y2 in pixels of the image.
    scores: float32 [n].
    labels: int [n].
    masks: n masks bool [H, W] of the image's size, or None if the model has no masks.
    size: (height, width) of the image.
    class_names: of all classes.
  """

  boxes: np.ndarray
  scores: np.ndarray
  labels: np.ndarray
  masks: list[np.ndarray] | None
  size: tuple[int, int]
  class_names: tuple[str, ...]


def metrics(config: ml_collections.ConfigDict) -> dict[str, str]:
  """{metric: "max"}: COCO's twelve figures of boxes and, if the model has them, of masks."""
  kinds = ("box", "mask") if config.model.get("masks", True) else ("box",)
  return {f"{kind}_{figure}": "max" for kind in kinds for figure in FIGURES}


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for an unknown loss, augmentation of another task, or a backbone for one image size."""
  if config.loss not in LOSSES:
    raise UserError(f"loss={config.loss!r}: must be one of {', '.join(LOSSES)} for detection")
  wrong = [f"augment.{name}={config.augment[name]!r}" for name, off in _OTHERS.items() if config.augment[name] != off]
  wrong += [f"label_smoothing={config.label_smoothing}"] if config.label_smoothing else []
  if wrong:
    raise UserError(f"{', '.join(wrong)}: detection does not have this; remove it")
  name = config.model.get("backbone")
  backbone = models.MODELS.get(name, (None,))[0]
  if backbone is not None and not backbone.any_size:
    known = ", ".join(name for name, (module, _) in models.MODELS.items() if module.any_size)
    raise UserError(
      f"model.backbone={name}: it works at one image size, and detectors see images of any size: use one of {known}"
    )


def make_model(name: str, options: Mapping[str, Any], num_classes: int | None) -> nn.Module:
  """A detector: float [B, H, W, 3] -> `two_stage.Detections`."""
  known = [key for key, module in models.HEADS.items() if issubclass(module, two_stage.TwoStage)]
  if name not in known:
    raise ValueError(f"{name!r} is no detector: set model.name={' or '.join(known)}, and model.backbone")
  return models.create(name, num_classes=num_classes, **options)


def batch_specs(config: ml_collections.ConfigDict) -> tuple[dict[str, tuple[tuple[int, ...], Any]], ...]:
  """Of wide and of high canvases, or of square ones: {key: (shape of a row, dtype)}, see `data.detection_rows`."""
  shorter, longer = sorted(map(int, config.data.canvas))
  count, side = config.data.max_objects, detection_rows.MASK_SIDE
  objects = {"size": ((2,), jnp.int32), "boxes": ((count, 4), jnp.float32), "labels": ((count,), jnp.int32)}
  if config.model.get("masks", True):
    objects["masks"] = ((count, side, side), jnp.uint8)
  canvases = dict.fromkeys([(shorter, longer), (longer, shorter)])
  return tuple({"image": ((*canvas, 3), jnp.uint8), **objects} for canvas in canvases)


def augmented(
  key: jax.Array, batch: Mapping[str, jax.Array], num_classes: int, config: ml_collections.ConfigDict
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(float32 images [B, H, W, 3], targets): all augmentation is on the host; the padding becomes 0 here."""
  del key, num_classes
  targets = {name: x for name, x in batch.items() if name in ("size", "boxes", "labels", "masks")}
  return whole_image.normalized(batch["image"], batch["size"], config), targets


def forward(apply: Callable[..., Any], images: jax.Array, targets: Mapping[str, jax.Array]) -> Any:
  """What the detector returns in training, `two_stage.Losses`: it needs the targets to sample RoIs."""
  return apply(images, sizes=targets["size"], objects=targets)


def counts(outputs: Any) -> dict[str, jax.Array]:
  """What the sums of losses are divided by, over the whole batch: the numbers of sampled anchors and RoIs."""
  return outputs.counts


def loss(
  outputs: two_stage.Losses, targets: Mapping[str, jax.Array], config: ml_collections.ConfigDict, counts: Any = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(sum of all losses, {"loss_rpn_cls": ..., and "accuracy" of the sampled RoIs}, with mmdetection's names).

  counts: those of the whole batch, if `outputs` are of a part of it.
  """
  del targets, config
  counts = outputs.counts if counts is None else counts
  found = two_stage.means(outputs.sums, counts)
  of_stage = {name: name.replace("accuracy", "roi") for name in outputs.correct}
  accuracy = {name: outputs.correct[name] / jnp.maximum(counts[roi], 1) for name, roi in of_stage.items()}
  return sum(found.values()), {**found, **accuracy}


def outputs(
  apply: Callable[..., Any], batch: Mapping[str, Any], config: ml_collections.ConfigDict
) -> two_stage.Detections:
  """The detections of the images of an evaluation batch, in pixels of its canvases."""
  return apply(whole_image.normalized(batch["image"], batch["size"], config), sizes=batch["size"])


def probabilities(outputs: two_stage.Detections, loss_name: str) -> two_stage.Detections:
  """All of them."""
  del loss_name
  return outputs


def row(picture: Any, config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The row of a picture in an evaluation batch. picture: see `transforms.open_image`."""
  return detection_rows.unlabeled(pixels.to_array(transforms.open_image(picture)), config)


def predictions(
  values: two_stage.Detections, class_names: Sequence[str], top: int = 5, row: Mapping[str, Any] | None = None
) -> Prediction:
  """The objects of one image, at its own size. values: of it, as NumPy arrays; row: of `row`."""
  del top
  found = int((values.labels >= 0).sum())
  (height, width), boxes = map(int, row["original"]), in_image(values.boxes[:found], row["size"], row["original"])
  masks = None
  if values.masks is not None:
    masks = [host_masks.paste(mask, box, height, width) for mask, box in zip(values.masks, boxes, strict=False)]
  return Prediction(
    boxes, values.scores[:found], values.labels[:found], masks, (height, width), tuple(class_names)
  )  # fmt: skip


def in_image(boxes: np.ndarray, size: Sequence[int], original: Sequence[int]) -> np.ndarray:
  """float32 [n, 4]: boxes in pixels of an image of `original` (height, width), found when it was resized to `size`."""
  factors = np.float32([size[1] / original[1], size[0] / original[0]] * 2)
  return np.asarray(boxes, np.float32) / factors


def caption(target: Mapping[str, np.ndarray], class_names: Sequence[str]) -> str:
  """The classes of a target's objects, with how many there are of each, the most frequent first: "cat: 2 objects"."""
  labels = target["labels"][target["labels"] >= 0]
  numbers, times = np.unique(labels, return_counts=True)
  ordered = sorted(zip(-times, numbers, strict=True))[:3]
  lines = [f"{printable(class_names[i])[:16]}: {-n} object{'s' if n < -1 else ''}" for n, i in ordered]
  return "\n".join(lines + ["..."] * (len(numbers) > 3))
