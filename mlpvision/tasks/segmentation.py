"""Semantic segmentation: a class for every pixel. Labels are maps uint8 [H, W]; 255 is ignored everywhere."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from mlpvision import models
from mlpvision.data import pixels, rows, transforms
from mlpvision.errors import UserError, printable
from mlpvision.models.heads import interpolation, upernet
from mlpvision.tasks import whole_image

NOUN = "a segmenter"
METRICS = {"miou": "max", "aacc": "max", "macc": "max"}
COLUMNS = ("image", "class", "pixels", "share")  # of `table`
IGNORE = 255

# How the cross-entropy of pixels is averaged: over all pixels, of which the ignored ones count as 0, as mmsegmentation
# and the published recipes do; or over the pixels that are not ignored.
LOSSES = ("softmax", "softmax_valid")
# Fields of config.augment that are of classification, and the values that turn them off.
_OTHERS = {"randaugment": "", "mixup": 0.0, "cutmix": 0.0, "random_erasing": 0.0}


class Maps(NamedTuple):
  """labels: int32 [b, H, W], the predicted classes at the labels' own size; num_classes: of the model."""

  labels: jax.Array
  num_classes: int


@dataclasses.dataclass(frozen=True)
class Prediction:
  """labels: uint8 [H, W] at the image's own size; class_names: of all classes."""

  labels: np.ndarray
  class_names: tuple[str, ...]

  def areas(self) -> list[tuple[int, int]]:
    """(class, number of pixels) of the classes in the map, the largest first."""
    counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
    return [(int(i), int(counts[i])) for i in np.argsort(-counts, kind="stable") if counts[i]]


def metrics(config: ml_collections.ConfigDict) -> dict[str, str]:
  """METRICS."""
  del config
  return METRICS


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for an unknown loss, augmentation of classification, or a batch that BatchNorm cannot use."""
  if config.loss not in LOSSES:
    raise UserError(f"loss={config.loss!r}: must be one of {', '.join(LOSSES)} for segmentation")
  wrong = [f"augment.{name}={config.augment[name]!r}" for name, off in _OTHERS.items() if config.augment[name] != off]
  wrong += [f"label_smoothing={config.label_smoothing}"] if config.label_smoothing else []
  if wrong:
    raise UserError(f"{', '.join(wrong)}: segmentation does not have this; remove it")
  backbone = models.MODELS.get(config.model.get("backbone"), (None,))[0]
  if backbone is not None:
    check_mode(backbone, config.model.backbone, config)
  if config.data.batch_size // config.accumulation_steps < 2:
    raise UserError(
      "segmentation needs at least two images in each accumulation step: the head's batch normalization sees one value"
      " per image and channel. Increase data.batch_size or reduce accumulation_steps"
    )


def check_mode(backbone: Any, name: str, config: ml_collections.ConfigDict) -> None:
  """Raises UserError if a backbone, a module or its class, cannot segment images as config.eval says."""
  if config.eval.mode == "slide" and max(config.eval.stride) > config.data.image_size:
    raise UserError(
      f"eval.stride={tuple(config.eval.stride)}: must not exceed the side of a window, data.image_size="
      f"{config.data.image_size}, because no window would see the pixels between two of them"
    )
  if not backbone.any_size and config.eval.mode == "whole":
    raise UserError(
      f"{name} works at one image size, that of data.image_size={config.data.image_size}, so it cannot segment whole"
      " images of other sizes: set eval.mode='slide', or use a backbone for any size"
      f" ({', '.join(name for name, (module, _) in models.MODELS.items() if module.any_size)})"
    )


def make_model(name: str, options: Mapping[str, Any], num_classes: int | None) -> nn.Module:
  """A segmenter: float [B, H, W, 3] -> float32 logits [B, H / 4, W / 4, K]."""
  if models.HEADS.get(name) is not upernet.UperNet:
    raise ValueError(f"{name!r} is no segmenter: set model.name=upernet, and model.backbone")
  return models.create(name, num_classes=num_classes, **options)


def batch_specs(config: ml_collections.ConfigDict) -> tuple[dict[str, tuple[tuple[int, ...], Any]], ...]:
  """One: {key: (shape of a row, dtype)}: uint8 images and labels, and the (height, width) that an image fills."""
  sides = (config.data.image_size, config.data.image_size)
  return ({"image": ((*sides, 3), jnp.uint8), "label": (sides, jnp.uint8), "size": ((2,), jnp.int32)},)


def augmented(
  key: jax.Array, batch: Mapping[str, jax.Array], num_classes: int, config: ml_collections.ConfigDict
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(float32 images [B, S, S, 3], targets): all augmentation is on the host; the padding becomes 0 here.

  targets: "label" int32 [B, S, S], 255 where ignored, and "weight" float32 [B, S, S], 0 where ignored and otherwise
  such that its mean over the batch is 1: the mean of weighted values is their mean over the labeled pixels of the whole
  batch, whatever the number of accumulation steps.
  """
  del key, num_classes
  images = whole_image.normalized(batch["image"], batch["size"], config)
  label = batch["label"].astype(jnp.int32)
  valid = (label != IGNORE).astype(jnp.float32)
  return images, {"label": label, "weight": valid / jnp.maximum(valid.mean(), 1 / valid.size)}


def forward(apply: Callable[..., Any], images: jax.Array, targets: Any) -> Any:
  """apply(images), in training."""
  del targets
  return apply(images)


def counts(outputs: Any) -> dict[str, jax.Array]:
  """None: the loss is a mean over pixels, whose weights `augmented` knows."""
  del outputs
  return {}


def loss(
  outputs: tuple[jax.Array, jax.Array],
  targets: Mapping[str, jax.Array],
  config: ml_collections.ConfigDict,
  counts: Any = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(mean loss, {"aacc": share of the labeled pixels that are correct, "loss_decode", "loss_auxiliary"}).

  The logits are resized to the labels' size. The auxiliary head's loss is weighted with config.auxiliary_loss.
  """
  del counts
  label = targets["label"]
  weight = targets["weight"] if config.loss == "softmax_valid" else (label != IGNORE).astype(jnp.float32)
  known = jnp.where(label == IGNORE, 0, label)

  def mean(logits):
    logits = interpolation.bilinear(logits, label.shape[1:])
    return (weight * optax.softmax_cross_entropy_with_integer_labels(logits, known)).mean(), logits

  decode, logits = mean(outputs[0])
  auxiliary = config.auxiliary_loss * mean(outputs[1])[0]
  hits = targets["weight"] * (logits.argmax(-1) == label)
  return decode + auxiliary, {"aacc": hits.mean(), "loss_decode": decode, "loss_auxiliary": auxiliary}


def outputs(apply: Callable[..., jax.Array], batch: Mapping[str, Any], config: ml_collections.ConfigDict) -> Maps:
  """The class of each pixel at the labels' size, by `whole_image.predict`. batch: see `data.rows.Segmentation`."""
  return Maps(*whole_image.predict(apply, batch, config))


def partial(
  outputs: Maps, batch: Mapping[str, jax.Array], loss_name: str, classes: Sequence[int] | np.ndarray | None = None
) -> dict[str, jax.Array]:
  """Over the rows with mask True: "confusion" int32 [K, K], the pixels of each class (row) and prediction, "images".

  classes: int [k], the model's class for each label, None if they are the same.
  """
  del loss_name
  label, count = batch["label"].astype(jnp.int32), outputs.num_classes
  valid = (label != IGNORE) & batch["mask"][:, None, None]
  label = jnp.where(valid, label, 0)
  if classes is not None:
    label = jnp.asarray(classes)[label]
  confusion = jnp.zeros(count * count, jnp.int32).at[label * count + outputs.labels].add(valid.astype(jnp.int32))
  return {"confusion": confusion.reshape(count, count), "images": batch["mask"].sum()}


def scores(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
  """mIoU, the share of correct pixels (aAcc), and its mean over the classes (mAcc), from the sums over a split.

  As in mmsegmentation, a class that is in neither labels nor predictions has no IoU, and one without labels no
  accuracy; means leave them out.
  """
  counts = np.asarray(sums["confusion"], np.float64)
  correct, labeled, union = counts.diagonal(), counts.sum(1), counts.sum(0) + counts.sum(1) - counts.diagonal()
  if not labeled.sum():
    raise UserError("no pixel of this split has a label: there is nothing to score")
  return {
    "miou": float((correct[union > 0] / union[union > 0]).mean()),
    "aacc": float(correct.sum() / labeled.sum()),
    "macc": float((correct[labeled > 0] / labeled[labeled > 0]).mean()),
  }


def probabilities(outputs: Maps, loss_name: str) -> jax.Array:
  """The classes of the pixels, uint8 [b, H, W]."""
  del loss_name
  return outputs.labels.astype(jnp.uint8)


def row(picture: Any, config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The row of a picture in an evaluation batch. picture: see `transforms.open_image`."""
  return rows.unlabeled(pixels.to_array(transforms.open_image(picture)), config)


def predictions(
  values: np.ndarray, class_names: Sequence[str], top: int = 5, row: Mapping[str, Any] | None = None
) -> Prediction:
  """The map of one image. values: uint8 [H, W], of which the image fills row["label_size"], all without a row."""
  del top
  height, width = values.shape if row is None else row["label_size"]
  return Prediction(np.asarray(values[:height, :width]), tuple(class_names))


def as_text(found: Prediction) -> str:
  """One line per class in the map, with its share of the image."""
  return "\n".join(
    f"  {pixels / found.labels.size:7.2%}  {printable(found.class_names[i])}" for i, pixels in found.areas()
  )


def as_json(found: Prediction) -> dict[str, Any]:
  """The size of the map and the areas of its classes, as a dict of JSON values."""
  height, width = found.labels.shape
  areas = [
    {"name": found.class_names[i], "index": i, "pixels": pixels, "share": pixels / found.labels.size}
    for i, pixels in found.areas()
  ]
  return {"height": height, "width": width, "classes": areas}


def table(found: Prediction, path: str) -> list[tuple[Any, ...]]:
  """A row of COLUMNS for each class in the map of the image at a path, the largest first."""
  return [(path, found.class_names[i], pixels, pixels / found.labels.size) for i, pixels in found.areas()]


def caption(target: Mapping[str, np.ndarray], class_names: Sequence[str]) -> str:
  """The two largest classes of a target, see `augmented`, with their shares of its labeled pixels: "sky: 42%"."""
  labels = target["label"][target["label"] != IGNORE]
  found = Prediction(labels, tuple(class_names)).areas()[:2]
  return "\n".join(f"{printable(class_names[i])[:24]}: {count / labels.size:.0%}" for i, count in found)


def label_map(target: Mapping[str, np.ndarray]) -> np.ndarray:
  """uint8 [H, W]: the classes of the pixels, 255 where ignored."""
  return target["label"].astype(np.uint8)
