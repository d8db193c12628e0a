"""Tasks: everything about a run that depends on what is learnt.

The loop, step, checkpoints, evaluation, plan, benchmark, preview and predict ask the task that `config.task` names; a
task asks none of them. It has two halves. The host half makes rows of batches from examples and never imports JAX:
`data/rows.py`. The device half is a module with these names:

METRICS: {"top1": "max", "loss": "min"}, the metrics of an evaluation, the headline first, and which way is better.
check(config): raises UserError for fields of the config that only this task reads.
batch_spec(config): {key: (shape of a row, dtype)} of a training batch, as `data/rows.py` makes it.
make_model(name, options, num_classes): a linen module, from normalised images [B, H, W, 3] to outputs.
augmented(key, batch, num_classes, config): (float32 images [B, H, W, 3], a tree of targets [B, ...]). Whatever moves
  an image moves its targets.
loss(outputs, targets, config): (mean loss, {metric: mean}); means are over the global batch.
partial(outputs, batch, loss, classes): sums over the rows whose mask is True, "images" among them; batches add up.
scores(sums): {metric: float} for METRICS.
probabilities(outputs, loss): what `predictions` reads; runs on the device.
predictions(probabilities, class_names, top): the answer for one image; `as_text` and `as_json` show it.
caption(target, class_names): one target in words, for a contact sheet.
"""

from types import ModuleType
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np

from mlpvision.errors import UserError
from mlpvision.tasks import classification

TASKS = {"classification": classification}


def of(config: ml_collections.ConfigDict) -> ModuleType:
  """The task that config.task names.

  Raises:
    UserError: there is no such task.
  """
  return by_name(config.get("task", "classification"))


def by_name(name: str) -> ModuleType:
  """The task of this name. UserError where there is none."""
  if name not in TASKS:
    raise UserError(f"task={name!r}: one of {', '.join(TASKS)}")
  return TASKS[name]


def make_model(config: ml_collections.ConfigDict, num_classes: int | None) -> nn.Module:
  """The module that config.task and config.model describe; num_classes None leaves out a classifier's head.

  Raises:
    UserError: unknown model, option or dtype.
  """
  options = dict(config.model)
  name, dtype = options.pop("name"), options.pop("dtype")
  if dtype not in ("float32", "bfloat16"):
    raise UserError(f"model.dtype={dtype!r}: 'float32' or 'bfloat16'")
  try:
    return of(config).make_model(name, {**options, "dtype": jnp.dtype(dtype)}, num_classes)
  except ValueError as error:
    raise UserError(f"model: {error}") from error


def batch_spec(config: ml_collections.ConfigDict) -> dict[str, tuple[tuple[int, ...], Any]]:
  """{key: (shape of a row, dtype)} of the batch that a training step takes."""
  return {**of(config).batch_spec(config), "replaced": ((), jnp.bool_)}


def random_batch(config: ml_collections.ConfigDict, num_classes: int, seed: int = 0) -> dict[str, np.ndarray]:
  """A batch of `batch_spec` with random images and labels, as the loader would give it."""
  rng, found = np.random.default_rng(seed), {}
  for key, (shape, dtype) in batch_spec(config).items():
    high = 256 if key == "image" else 1 if dtype == jnp.bool_ else num_classes
    found[key] = rng.integers(0, high, (config.data.batch_size, *shape)).astype(dtype)
  return found
