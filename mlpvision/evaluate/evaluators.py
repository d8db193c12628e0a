"""The evaluators in config.evals.

To add one, write a class such as `calibration.Calibration`, and add it to EVALUATORS and an entry to config.evals.
"""

from collections.abc import Iterable, Mapping, Sequence
import os
import re
from typing import Any

from flax import linen as nn
import jax
import ml_collections
import numpy as np

from mlpvision import tasks
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate.accuracy import Accuracy
from mlpvision.evaluate.average_precision import AveragePrecision
from mlpvision.evaluate.calibration import Calibration
from mlpvision.evaluate.per_image import PerImage
from mlpvision.fewshot import linear_probe
from mlpvision.fewshot.linear_probe import FewShot

# Classes with `metrics(entry, config)` -> {metric: "max" or "min"}, headline first, and `run(variables)` -> values.
EVALUATORS = {"accuracy": Accuracy, "calibration": Calibration, "fewshot": FewShot}
_LABELS = {"miou": "mIoU", "aacc": "aAcc", "macc": "mAcc"}  # as mmsegmentation writes them
_LEFT_OUT = re.compile(r"(box|mask)_(?!ap$|ap50$|ap75$)")  # COCO's figures beyond these three are not in a summary


def class_of(name: str, config: Mapping[str, Any]) -> Any:
  """The class of an evaluator's type, a key of EVALUATORS; the task's own metrics are COCO's for detection."""
  return AveragePrecision if name == "accuracy" and config.get("task") == "detection" else EVALUATORS[name]


def entries(config: ml_collections.ConfigDict) -> dict[str, Mapping[str, Any]]:
  """{name: entry} of the enabled evaluators in config.evals. Raises UserError for an unknown type."""
  for name, entry in config.evals.items():
    if entry.get("type") not in EVALUATORS:
      raise UserError(f"evals.{name}.type={entry.get('type')!r}: must be one of {', '.join(EVALUATORS)}")
  # A ConfigDict is in alphabetical order; the task's own metrics come first.
  ordered = sorted(config.evals.items(), key=lambda item: item[1].type != "accuracy")
  enabled = {name: entry for name, entry in ordered if entry.get("every") != "never"}
  for name, entry in enabled.items():
    check_task(entry["type"], config, f"evals.{name}: set evals.{name}.every=never")
  return enabled


def check_task(kind: str, config: Mapping[str, Any], hint: str) -> None:
  """Raises UserError if an evaluator, a key of EVALUATORS, is not for config.task; the message ends with the hint."""
  task = tasks.of(config)
  if task is not tasks.classification and kind != "accuracy":
    figure = "mIoU" if task is tasks.segmentation else "AP"
    raise UserError(f"{kind} is for classifiers, and this is {task.NOUN}, which has accuracy alone ({figure}); {hint}")


def metrics(config: ml_collections.ConfigDict) -> dict[str, str]:
  """All metrics of the run's evaluators, and which direction is better: {"val/top1": "max", "val/ema_top1": "max"}."""
  found = {}
  for name, entry in entries(config).items():
    for prefix in ("", "ema_") if config.ema_decay else ("",):
      for metric, direction in class_of(entry["type"], config).metrics(entry, config).items():
        found[f"{name}/{prefix}{metric}"] = direction
  return found


def direction(config: ml_collections.ConfigDict) -> str:
  """Whether larger ("max") or smaller ("min") values of config.checkpoint.best are better; UserError if unknown."""
  best, known = config.checkpoint.best, metrics(config)
  if best and best not in known:
    raise UserError(f"checkpoint.best={best!r}: must be one of {', '.join(known)}, or '' for none")
  return known[best] if best else "max"


def make(
  entry: Mapping[str, Any],
  model: nn.Module,
  class_names: Sequence[str],
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  *,
  weights: str = "this run",
  opened: Iterable[datasets.Split] = (),
  trained_on: str | None = None,
  per_image: bool = False,
) -> tuple[Any, datasets.Split, str | None]:
  """(evaluator, its split, a note on how classes were matched or None) of an entry of config.evals.

  entry: {"type": a key of EVALUATORS, ...}, see config.evals.
  config: task, loss, data, eval and seed are read; data is the default for the dataset.
  weights: name of the parameters in messages.
  opened: splits that are already open.
  trained_on: name of the model's dataset. A split of it that lacks some classes is scored over all of them; another
    dataset is scored over its own.
  per_image: the accuracy of a classifier is a `PerImage`.

  Raises UserError: no such dataset, or it has classes that the model does not have.
  """
  name = entry.get("name") or config.data.name

  def open_split(split):
    known = {found.name: found for found in opened}
    return known.get(f"{name}:{split}") or datasets.of(config, split, name)

  chosen, split = class_of(entry["type"], config), open_split(entry.get("split") or config.data.eval_split)
  if per_image and chosen is Accuracy:
    chosen = PerImage
  if chosen is FewShot:  # fits its own head, so classes need not match
    train_split = open_split(entry.get("train_split") or config.data.train_split)
    return FewShot(model, train_split, split, config, mesh, linear_probe.shots(entry)), split, None
  if name == trained_on:
    split, note = datasets.with_classes(split, class_names, weights)
    return chosen(model, split, config, mesh), split, note
  classes, note = match_classes(class_names, split.class_names, weights=weights, dataset=split.name)
  return chosen(model, split, config, mesh, classes), split, note


def match_classes(
  model_names: Sequence[str], dataset_names: Sequence[str], *, weights: str | os.PathLike, dataset: str
) -> tuple[np.ndarray | None, str | None]:
  """(classes, note): int [k], the model's class for each class of the dataset, and how they were matched.

  Both are None if the classes are the same, in the same order. Raises UserError if the dataset has other classes.

  model_names: in the order of the logits; "0", "1", ... for weights without class names.
  dataset_names: in the order of the labels.
  weights, dataset: names for messages.
  """
  model_names, dataset_names = tuple(model_names), tuple(dataset_names)
  if model_names == dataset_names:
    return None, None
  numbers = {name: i for i, name in enumerate(model_names)}
  unknown = [name for name in dataset_names if name not in numbers]
  if not unknown:
    classes = np.array([numbers[name] for name in dataset_names], np.int32)
    if len(classes) == len(model_names):
      return classes, "the dataset has the weights' classes in another order; they are matched by name"
    return classes, f"the dataset has {len(classes):,} of the weights' {len(model_names):,} classes; scored over these"
  if len(model_names) == len(dataset_names):
    for side, names in (("weights have", model_names), ("dataset has", dataset_names)):
      if names == tuple(str(i) for i in range(len(names))):
        return None, f"the {side} numbers instead of class names: assuming the same order"
  raise UserError(
    f"{dataset} has {len(dataset_names):,} classes, {weights} has {len(model_names):,}; {len(unknown):,} classes of the"
    f" dataset are not in the weights: {', '.join(unknown[:5])}{', ...' if unknown[5:] else ''}"
  )


def run(name: str, evaluator: Any, variables: Any, ema: Any = None) -> dict[str, Any]:
  """{"NAME/metric": value} of the variables, and {"NAME/ema_metric": value} of their EMA if there is one."""
  results = {f"{name}/{metric}": value for metric, value in evaluator.run(variables).items()}
  if ema is not None:
    results |= {f"{name}/ema_{metric}": value for metric, value in evaluator.run(ema).items()}
  return results


def summary(results: Mapping[str, float], digits: int = 2) -> str:
  """Results of `run` in one line: losses as numbers, other metrics in percent; only the headline of an EMA."""
  parts = []
  for name in dict.fromkeys(key.partition("/")[0] for key in results):
    found = {key.partition("/")[2]: value for key, value in results.items() if key.startswith(f"{name}/")}
    count, _ = found.pop("images", None), found.pop("ema_images", None)
    found = {metric: value for metric, value in found.items() if not _LEFT_OUT.match(metric.removeprefix("ema_"))}
    of_ema = [metric for metric in found if metric.startswith("ema_")]
    shown = [_format(metric, found[metric], digits) for metric in found if metric not in of_ema[1:]]
    parts.append("  ".join(shown) + (f"  on {count:,} test images" if count else ""))
  return "; ".join(parts)


def _format(metric, value, digits):
  label = metric.removeprefix("ema_")
  label = _LABELS.get(label) or re.sub(r"^top(\d)$", r"top-\1", label)
  label = re.sub(r"^(box|mask)_ap", r"\1 AP", label)
  number = f"{value:.{digits + 2}f}" if label == "loss" else f"{value:.{digits}%}"
  return f"EMA {label} {number}" if metric.startswith("ema_") else f"{label} {number}"
