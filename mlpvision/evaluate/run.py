"""Evaluation of a trained model on a dataset."""

import os
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec as P
import ml_collections

from mlpvision import config as config_lib, sharding, trained as trained_lib
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate import classes
from mlpvision.evaluate.evaluator import Evaluator

# What evaluation takes from a config that is given to it; all else belongs to the weights.
_FROM_CONFIG = ("name", "data_dir", "train_split", "eval_split", "workers", "prefetch")


def evaluate(
  source: str | os.PathLike, config: ml_collections.ConfigDict | None = None, *, ema: bool = False
) -> dict[str, Any]:
  """Exact top-1, top-5 and loss.

  Classes are matched by name. Where a dataset has only some of the weights' classes (ImageNet-A and -R, a folder with
  ten classes of ImageNet), the others' logits are left out before anything is scored.

  Args:
    source: as `trained.load` takes it.
    config: names the dataset, split, batch size and mesh; default: the run's own.
    ema: evaluate the moving average of the parameters.

  Returns:
    {"weights", "step", "dataset", "images", "top1", "top5", "loss", "notes"}: notes are sentences on how the classes
    were matched and on images without a label, which are not among "images"; mostly there are none.

  Raises:
    UserError: no checkpoint or dataset there, a broken image, or a dataset with classes that the weights have not.
  """
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model) if config else sharding.make_mesh()
  trained = trained_lib.load(source, sharding=NamedSharding(mesh, P()), ema=ema)
  merged = with_dataset(trained, config)
  split = datasets.open_split(merged.data.name, merged.data.eval_split, merged.data.data_dir)
  chosen, note = classes.match(trained.class_names, split.class_names, weights=source, dataset=split.name)
  results = Evaluator(trained.model, split, merged, mesh, chosen).run(trained.params)
  notes = [note] if note else []
  if results["images"] < len(split):
    notes.append(f"{len(split) - results['images']:,} of {len(split):,} images have no label and are left out")
  return {"weights": str(source), "step": trained.step, "dataset": split.name, **results, "notes": notes}


def with_dataset(
  trained: trained_lib.Trained, config: ml_collections.ConfigDict | None = None
) -> ml_collections.ConfigDict:
  """The config of a `trained.Trained`, with the dataset, batch size and loader of another config where one is given.

  Raises:
    UserError: neither names a dataset.
  """
  merged = trained.config.copy_and_resolve_references()
  if config is not None:
    with merged.unlocked():
      merged.data.update({field: config.data[field] for field in _FROM_CONFIG})
      merged.seed = config.seed
      merged.eval.batch_size = config.eval.batch_size
  elif trained.step is None:
    raise UserError(
      "these weights are not a run: --config has to name the dataset, e.g. --config=configs/s2mlp_wide.py"
    )
  config_lib.check_evaluation(merged)
  return merged
