"""Tasks: everything about a run that depends on what is learned.

The loop, step, checkpoints, evaluation, plan, benchmark, preview and predict call the task in `config.task`; a task
calls none of them. The host half of a task, in `data/rows.py`, makes rows of batches from examples and never imports
JAX. The device half is a module with these names:

NOUN: what a model of the task is, such as "a classifier", for messages.
metrics(config): {"top1": "max", "loss": "min"}, the metrics of an evaluation, headline first, and which direction is
  better.
check(config): raises UserError for invalid values of the config fields that only this task reads.
batch_specs(config): ({key: (shape of a row, dtype)}, ...) of a training batch, as `data/rows.py` makes it; one for
  each shape that batches have, of which a step has one.
make_model(name, options, num_classes): a linen module, from normalized images [B, H, W, 3] to outputs.
augmented(key, batch, num_classes, config): (float32 images [B, H, W, 3], a tree of targets [B, ...]). Geometric
  transforms apply to images and targets alike.
forward(apply, images, targets): the model's outputs in training; apply(images, **options) applies it.
counts(outputs): numbers that the loss divides sums over the batch by, if the model's outputs decide them; otherwise {}.
loss(outputs, targets, config, counts): (mean loss, {metric: mean}); means are over the global batch. counts: those of
  the whole batch, divided by the number of parts, if `outputs` are of a part of it; otherwise None.
outputs(apply, batch, config): what the model says about the rows of an evaluation batch, or of `row`s; apply(images)
  applies the model to normalized images.
partial(outputs, batch, loss, classes): sums over the rows with mask True, including "images", to be added over batches.
scores(sums): {metric: float} for `metrics`. Detection has an evaluator of its own in place of these two.
probabilities(outputs, loss): the input of `predictions`; runs on the device.
row(picture, config): the row of a picture in an evaluation batch, without its target.
predictions(probabilities, class_names, top, row): the prediction for one image, from its `row`; `as_text`, `as_json`
  and, as rows of COLUMNS, `table` format it.
caption(target, class_names): one target as text, for a contact sheet.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np

from mlpvision.errors import UserError
from mlpvision.models.detection import two_stage
from mlpvision.models.heads import upernet
from mlpvision.tasks import classification, detection, segmentation

TASKS = {"classification": classification, "segmentation": segmentation, "detection": detection}


def of(config: Mapping[str, Any]) -> ModuleType:
  """The task in config.task, by default classification. Raises UserError for an unknown name."""
  name = config.get("task", "classification")
  if name not in TASKS:
    raise UserError(f"task={name!r}: must be one of {', '.join(TASKS)}")
  return TASKS[name]


def name_of(model: nn.Module) -> str:
  """The task of a model from a weight file."""
  if isinstance(model, two_stage.TwoStage):
    return "detection"
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


def batch_specs(config: ml_collections.ConfigDict) -> tuple[dict[str, tuple[tuple[int, ...], Any]], ...]:
  """{key: (shape of a row, dtype)} of a training batch, for each shape that batches have."""
  return tuple({**spec, "replaced": ((), jnp.bool_)} for spec in of(config).batch_specs(config))


def random_batch(config: ml_collections.ConfigDict, num_classes: int, seed: int = 0) -> dict[str, np.ndarray]:
  """A batch as described by the first of `batch_specs`, with random images and labels; images fill their canvas."""
  rng, (spec, *_) = np.random.default_rng(seed), batch_specs(config)
  height, width = spec["image"][0][:2]
  found = {}
  for key, (shape, dtype) in spec.items():
    shape = (config.data.batch_size, *shape)
    if key == "size":
      found[key] = np.broadcast_to(np.int32([height, width]), shape).copy()
    elif key == "boxes":
      corners = np.sort(rng.uniform(0, 1, (*shape[:-1], 2, 2)), -2).reshape(shape)
      found[key] = (corners * np.tile([width, height], 2)).astype(dtype)
    else:
      high = 256 if key in ("image", "masks") else 1 if dtype == jnp.bool_ else num_classes
      found[key] = rng.integers(0, high, shape).astype(dtype)
  return found
