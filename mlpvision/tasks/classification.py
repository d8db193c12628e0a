"""Classification: one of K classes per image; in evaluation, several classes may be correct."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from mlpvision import augment, models
from mlpvision.data import crops, imagenet, transforms
from mlpvision.errors import UserError, printable

NOUN = "a classifier"
METRICS = {"top1": "max", "top5": "max", "loss": "min"}
COLUMNS = ("image", "rank", "class", "words", "probability")  # of `table`


# float32 logits [B, K] and targets [B, K] that sum to 1 -> float32 [B]. The sigmoid loss is the binary cross-entropy,
# summed over the classes (as in the JAX recipe of Mixer).
LOSSES = {
  "softmax": optax.softmax_cross_entropy,
  "sigmoid": lambda logits, targets: optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1),
}


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
  """int [B] -> float32 [B, K]: smoothing / K, plus 1 - smoothing at the label (arXiv 1512.00567, Sec. 7)."""
  return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


class Prediction(NamedTuple):
  """The dataset's name of a class, its probability, and WordNet's words if the name is a WordNet id."""

  name: str
  probability: float
  words: str | None


def metrics(config: ml_collections.ConfigDict) -> dict[str, str]:
  """METRICS."""
  del config
  return METRICS


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for an unknown config.loss."""
  if config.loss not in LOSSES:
    raise UserError(f"loss={config.loss!r}: must be one of {', '.join(LOSSES)}")


def make_model(name: str, options: Mapping[str, Any], num_classes: int | None) -> nn.Module:
  """A classifier: float [B, H, W, 3] -> float32 logits [B, K]."""
  return models.create(name, num_classes=num_classes, **options)


def batch_specs(config: ml_collections.ConfigDict) -> tuple[dict[str, tuple[tuple[int, ...], Any]], ...]:
  """One: {key: (shape of a row, dtype)}: uint8 images and int32 labels."""
  return ({"image": ((config.data.image_size, config.data.image_size, 3), jnp.uint8), "label": ((), jnp.int32)},)


def augmented(
  key: jax.Array, batch: Mapping[str, jax.Array], num_classes: int, config: ml_collections.ConfigDict
) -> tuple[jax.Array, jax.Array]:
  """The augmented batch: (float32 images [B, H, W, 3], float32 targets [B, num_classes])."""
  flip_key, erase_key, mix_key = jax.random.split(key, 3)
  images = augment.normalize(batch["image"], config.data.mean, config.data.std)
  images = augment.random_flip(flip_key, images, config.augment.flip)
  images = augment.random_erasing(erase_key, images, config.augment.random_erasing)
  targets = smooth_one_hot(batch["label"], num_classes, config.label_smoothing)
  mixing = dict(mixup=config.augment.mixup, cutmix=config.augment.cutmix)
  return augment.mixup_cutmix(mix_key, images, targets, **mixing)


def forward(apply: Callable[..., Any], images: jax.Array, targets: Any) -> Any:
  """apply(images), in training."""
  del targets
  return apply(images)


def counts(outputs: Any) -> dict[str, jax.Array]:
  """None: the loss is a mean over images."""
  del outputs
  return {}


def loss(
  logits: jax.Array, targets: jax.Array, config: ml_collections.ConfigDict, counts: Any = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(mean loss, {"top1": share of images whose predicted class has the largest share of the target})."""
  del counts
  hits = logits.argmax(-1) == targets.argmax(-1)
  return LOSSES[config.loss](logits, targets).mean(), {"top1": hits.mean(dtype=jnp.float32)}


def outputs(
  apply: Callable[..., jax.Array], batch: Mapping[str, jax.Array], config: ml_collections.ConfigDict
) -> jax.Array:
  """float32 logits [b, K] of the images of an evaluation batch, uint8 [b, H, W, 3]."""
  return apply(augment.normalize(batch["image"], config.data.mean, config.data.std))


def partial(
  logits: jax.Array, batch: Mapping[str, jax.Array], loss_name: str, classes: Sequence[int] | np.ndarray | None = None
) -> dict[str, jax.Array]:
  """Sums over the rows with mask True: top1, top5, loss, images.

  If several classes of an image are correct, any of them counts, and the target of the loss is uniform over them.

  logits: float32 [b, K]; batch: {"label": int32 [b] or bool [b, k], "mask": bool [b]}; loss_name: a key of LOSSES;
    classes: int [k], the model's class for each label, None if they are the same.
  """
  if classes is not None:
    logits = logits[:, jnp.asarray(classes)]
  labels, mask = batch["label"], batch["mask"]
  correct = labels if labels.ndim == 2 else jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
  _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
  hits = jnp.take_along_axis(correct, best, -1) & mask[:, None]
  return {
    "top1": hits[:, 0].sum(),
    "top5": hits.any(-1).sum(),
    "loss": jnp.where(mask, losses(logits, labels, loss_name), 0.0).sum(),
    "images": mask.sum(),
  }


def losses(logits: jax.Array, labels: jax.Array, loss_name: str) -> jax.Array:
  """float32 [b]: the loss of each image, uniform over its labels if it has several; 0 labels give any number.

  logits: float32 [b, K]; labels: int32 [b] or bool [b, K]; loss_name: a key of LOSSES.
  """
  correct = labels if labels.ndim == 2 else jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.bool_)
  return LOSSES[loss_name](logits, correct / jnp.maximum(correct.sum(-1, keepdims=True), 1))


def scores(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
  """{metric: mean over the images} from the sums over a split."""
  return {name: (sums[name] / sums["images"]).item() for name in METRICS}


def probabilities(logits: jax.Array, loss_name: str) -> jax.Array:
  """[B, K]: the softmax, or the sigmoid for a model that was trained with the sigmoid loss."""
  return (jax.nn.sigmoid if loss_name == "sigmoid" else jax.nn.softmax)(logits)


def row(picture: Any, config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """The row of a picture in an evaluation batch. picture: see `transforms.open_image`."""
  view = dict(crop_ratio=config.eval.crop_ratio, interpolation=config.eval.interpolation)
  return {"image": crops.center_crop(transforms.open_image(picture), config.data.image_size, **view)}


def predictions(
  values: np.ndarray, class_names: Sequence[str], top: int = 5, row: Mapping[str, Any] | None = None
) -> list[Prediction]:
  """The `top` most probable classes of one image, most probable first. values: its probabilities [K]."""
  del row
  best = np.argsort(-values, kind="stable")[:top]
  return [Prediction(class_names[i], float(values[i]), imagenet.words(class_names[i])) for i in best]


def as_text(found: Sequence[Prediction]) -> str:
  """One line per class."""
  return "\n".join(
    f"  {probability:7.2%}  {f'{words} ({name})' if words else printable(name)}" for name, probability, words in found
  )


def as_json(found: Sequence[Prediction]) -> dict[str, Any]:
  """Predictions as a dict of JSON values."""
  return {"classes": [prediction._asdict() for prediction in found]}


def table(found: Sequence[Prediction], path: str) -> list[tuple[Any, ...]]:
  """A row of COLUMNS for each class of the image at a path; rank 1 is the most probable."""
  return [(path, rank, x.name, x.words or "", x.probability) for rank, x in enumerate(found, 1)]


def caption(target: np.ndarray, class_names: Sequence[str]) -> str:
  """Up to two classes of a target [K] with their shares, "4: 91%"; the small ones of label smoothing are left out."""
  best = [i for i in np.argsort(-target)[:2] if target[i] > 0.06]
  return "\n".join(f"{printable(class_names[i])[:24]}: {target[i]:.0%}" for i in best)
