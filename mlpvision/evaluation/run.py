"""A trained model from a checkpoint or from published weights, and its evaluation."""

import dataclasses
import os
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec as P
import ml_collections

from mlpvision import checkpoints, config as config_lib, sharding, weights
from mlpvision.data import datasets, imagenet
from mlpvision.errors import UserError
from mlpvision.evaluation import classes
from mlpvision.evaluation.classification import Evaluator
from mlpvision.training.setup import make_model

# What evaluation takes from a config that is given to it; all else belongs to the weights.
_FROM_CONFIG = ("name", "data_dir", "eval_split", "workers", "prefetch")


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model with its parameters and what they expect of an image.

  config is a run's whole config; published weights have a part of one: data, eval and loss, without a dataset. Their
  class_names are ImageNet's WordNet ids; any other file's are the classes' numbers. The step of both is None.
  """

  model: Any
  params: Any
  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  step: int | None


def load(source, *, sharding=None, ema=False):
  """Reads a model.

  Args:
    source: a run's workdir or one of its checkpoints; or weights: a file, or a name in `weights.KNOWN`.
    sharding: where each array goes; default: this process's first device.
    ema: the moving average instead of the parameters; runs only.

  Returns:
    Trained.

  Raises:
    UserError: nothing usable there, or a file of weights that does not say what images it expects.
  """
  if os.path.isfile(source) or source in weights.KNOWN:
    return _load_weights(source, sharding)
  params, meta, step = checkpoints.load_weights(source, sharding, ema)
  config = ml_collections.ConfigDict(meta["config"])
  model = make_model(config.model, len(meta["class_names"]))
  return Trained(model, params, config, tuple(meta["class_names"]), step)


def _load_weights(source, sharding):
  model, params, info = weights.load(source)
  if info.preprocessing is None:
    raise UserError(
      f"{source} does not say what images it expects; load it in Python, and give weights.save a Preprocessing"
    )
  view = dataclasses.asdict(info.preprocessing)
  data = {key: view.pop(key) for key in ("mean", "std", "image_size")}
  config = ml_collections.ConfigDict({"data": data, "eval": view, "loss": "softmax"})
  names = imagenet.head_classes(model.num_classes) if info.entry else None
  names = names or tuple(str(i) for i in range(model.num_classes))
  return Trained(model, jax.device_put(params, sharding), config, names, None)


def evaluate(source, config=None, *, ema=False):
  """Exact top-1, top-5 and loss.

  Classes are matched by name. Where a dataset has only some of the weights' classes (ImageNet-A and -R, a folder with
  ten classes of ImageNet), the others' logits are left out before anything is scored.

  Args:
    source: as `load` takes it.
    config: names the dataset, split, batch size and mesh; default: the run's own.
    ema: evaluate the moving average of the parameters.

  Returns:
    {"weights", "step", "dataset", "images", "top1", "top5", "loss", "notes"}: notes are sentences on how the classes
    were matched and on images without a label, which are not among "images"; mostly there are none.

  Raises:
    UserError: no checkpoint or dataset there, a broken image, or a dataset with classes that the weights have not.
  """
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model) if config else sharding.make_mesh()
  trained = load(source, sharding=NamedSharding(mesh, P()), ema=ema)
  merged = trained.config
  if config is not None:
    merged.data.update({field: config.data[field] for field in _FROM_CONFIG})
    merged.eval.batch_size = config.eval.batch_size
  elif trained.step is None:
    raise UserError(f"{source} is not a run: --config has to name the dataset, e.g. --config=configs/s2mlp_wide.py")
  config_lib.check_evaluation(merged)
  split = datasets.open_split(merged.data.name, merged.data.eval_split, merged.data.data_dir)
  chosen, note = classes.match(trained.class_names, split.class_names, weights=source, dataset=split.name)
  results = Evaluator(trained.model, split, merged, mesh, chosen).run(trained.params)
  notes = [note] if note else []
  if results["images"] < len(split):
    notes.append(f"{len(split) - results['images']:,} of {len(split):,} images have no label and are left out")
  return {"weights": str(source), "step": trained.step, "dataset": split.name, **results, "notes": notes}
