"""Tasks: everything about a run that depends on what is learned.

The loop, step, checkpoints, evaluation, plan, benchmark, preview and predict call the task in `config.task`; a task
calls none of them. The host half of a task, in `data/rows.py`, makes rows of batches from examples and never imports
JAX. The device half is a module with these names:

METRICS: {"top1": "max", "loss": "min"}, the metrics of an evaluation, headline first, and which direction is better.
check(config): raises UserError for invalid values of the config fields that only this task reads.
batch_spec(config): {key: (shape of a row, dtype)} of a training batch, as `data/rows.py` makes it.
make_model(name, options, num_classes): a linen module, from normalized images [B, H, W, 3] to outputs.
augmented(key, batch, num_classes, config): (float32 images [B, H, W, 3], a tree of targets [B, ...]). Geometric
  transforms apply to images and targets alike.
loss(outputs, targets, config): (mean loss, {metric: mean}); means are over the global batch.
outputs(apply, batch, config): what the model says about the rows of an evaluation batch, or of `row`s; apply(images)
  applies the model to normalized images.
partial(outputs, batch, loss, classes): sums over the rows with mask True, including "images", to be added over batches.
scores(sums): {metric: float} for METRICS.
probabilities(outputs, loss): the input of `predictions`; runs on the device.
row(picture, config): the row of a picture in an evaluation batch, without its target.
predictions(probabilities, class_names, top, row): the prediction for one image, from its `row`; `as_text` and
  `as_json` format it.
caption(target, class_names): one target as text, for a contact sheet.
label_map(target): one target as uint8 [H, W], 255 where ignored, to be drawn on its image there; or None.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np

from mlpvision.errors import UserError
from mlpvision.models.heads import upernet
from mlpvision.tasks import classification, segmentation

TASKS = {"classification": classification, "segmentation": segmentation}


def of(config: Mapping[str, Any]) -> ModuleType:
  """The task in config.task, by default classification. Raises UserError for an unknown name."""
  name = config.get("task", "classification")
  if name not in TASKS:
    raise UserError(f"task={name!r}: must be one of {', '.join(TASKS)}")
  return TASKS[name]


def name_of(model: nn.Module) -> str:
  """The task of a model from a weight file."""
  return "segmentation" if isinstance(model, upernet.UperNet) else "classification"


def make_model(config: ml_collections.ConfigDict, num_classes: int | None) -> nn.Module:
  """The module that config.task and config.model describe; without a classifier's head if num_classes is None.

  Raises UserError for an unknown model, option or dtype.
  """
  options = dict(config.model)
  name, dtype = options.pop("name"), options.pop("dtype")
  if dtype not in ("float32", "bfloat16"):
    raise UserError(f"model.dtype={dtype!r}: must be 'float32' or 'bfloat16'")
  try:
    return of(config).make_model(name, {**options, "dtype": jnp.dtype(dtype)}, num_classes)
  except ValueError as error:
    raise UserError(f"model: {error}") from error


def batch_spec(config: ml_collections.ConfigDict) -> dict[str, tuple[tuple[int, ...], Any]]:
  """{key: (shape of a row, dtype)} of a training batch."""
  return {**of(config).batch_spec(config), "replaced": ((), jnp.bool_)}


def random_batch(config: ml_collections.ConfigDict, num_classes: int, seed: int = 0) -> dict[str, np.ndarray]:
  """A batch as described by `batch_spec`, with random images and labels."""
  rng, found = np.random.default_rng(seed), {}
  for key, (shape, dtype) in batch_spec(config).items():
    high = 256 if key == "image" else 1 if dtype == jnp.bool_ else num_classes
    low = (high := config.data.image_size) if key == "size" else 0
    found[key] = rng.integers(low, high + bool(low), (config.data.batch_size, *shape)).astype(dtype)
  return found
