"""A trained model from its checkpoint, and its evaluation."""

import dataclasses
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec as P
import ml_collections

from mlpvision import checkpoints, config as config_lib, sharding
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluation.classification import Evaluator
from mlpvision.training.setup import make_model

# What evaluation takes from a config that is given to it; all else belongs to the weights.
_FROM_CONFIG = ("name", "data_dir", "eval_split", "workers", "prefetch")


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model with its parameters and the config it was trained with."""

  model: Any
  params: Any
  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  step: int


def load(weights, *, sharding=None, ema=False):
  """Reads a checkpoint as `Trained`; arguments and errors as `checkpoints.load_weights`."""
  params, meta, step = checkpoints.load_weights(weights, sharding, ema)
  config = ml_collections.ConfigDict(meta["config"])
  model = make_model(config.model, len(meta["class_names"]))
  return Trained(model, params, config, tuple(meta["class_names"]), step)


def evaluate(weights, config=None, *, ema=False):
  """Exact top-1, top-5 and loss.

  Args:
    weights: a run's workdir, or one checkpoint.
    config: names the dataset, split, batch size and mesh; default: the checkpoint's own.
    ema: evaluate the moving average of the parameters.

  Returns:
    {"weights", "step", "dataset", "images", "top1", "top5", "loss"}.

  Raises:
    UserError: no checkpoint or dataset there, or a dataset of another number of classes.
  """
  mesh_config = config.mesh if config is not None else ml_collections.ConfigDict({"data": -1, "fsdp": 1})
  mesh = sharding.make_mesh(mesh_config.data, mesh_config.fsdp)
  trained = load(weights, sharding=NamedSharding(mesh, P()), ema=ema)
  merged = trained.config
  if config is not None:
    merged.data.update({field: config.data[field] for field in _FROM_CONFIG})
    merged.eval.batch_size = config.eval.batch_size
  config_lib.check_evaluation(merged)
  split = datasets.open_split(merged.data.name, merged.data.eval_split, merged.data.data_dir)
  if len(split.class_names) != len(trained.class_names):
    raise UserError(
      f"{split.name} has {len(split.class_names)} classes, the weights in {weights} {len(trained.class_names)}"
    )
  results = Evaluator(trained.model, split, merged, mesh).run(trained.params)
  return {"weights": str(weights), "step": trained.step, "dataset": split.name, **results}
