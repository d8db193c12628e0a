"""Linear classifiers on frozen features: few-shot, and the linear probe on all images.

Ridge regression from the pooled features to one-hot targets, in closed form, as in big_vision's evaluator. The
regularization is chosen by leave-one-out cross-validation on the training images, which also has a closed form (Golub,
Heath and Wahba 1979). There is nothing to tune, and the test images are not used to choose anything.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import ml_collections
import numpy as np

from mlpvision import augment
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate import one_pass

# Regularization, in units of the mean eigenvalue of the features' covariance.
_STRENGTHS = 10.0 ** np.arange(-5, 3)


class FewShot:
  """Few-shot accuracy for several numbers of images per class. Every process must call `run`."""

  @staticmethod
  def metrics(entry: Mapping[str, Any], config: ml_collections.ConfigDict) -> dict[str, str]:
    """One accuracy for each number of shots in the entry."""
    return {metric_name(count): "max" for count in shots(entry)}

  def __init__(
    self,
    model: nn.Module,
    train_split: datasets.Split,
    eval_split: datasets.Split,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    shots: Sequence[int],
  ) -> None:
    """model: a classifier; its head is not used.

    config: task, data, eval and seed are read.
    shots: training images per class, drawn with config.seed; 0 uses all, for the linear probe.

    Raises UserError: eval_split has other classes, several labels per image, or too few images of a class.
    """
    if train_split.multi_label or eval_split.multi_label:
      raise UserError(f"few-shot: {train_split.name} and {eval_split.name} need one label per image")
    eval_split, _ = datasets.with_classes(eval_split, train_split.class_names, train_split.name)
    self._eval_split, self._config, self._mesh = eval_split, config, mesh
    self._train = {count: _choose(train_split, count, config.seed) for count in shots}
    features, data = model.clone(num_classes=None), config.data

    def extract(params, batch):
      images = augment.normalize(batch["image"], data.mean, data.std)
      return features.apply({"params": params}, images), batch["label"], batch["mask"]

    self._features = one_pass.jit(extract, mesh)

  def run(self, variables: Mapping[str, Any]) -> dict[str, float]:
    """{"top1_5shot": accuracy on the evaluation split, ...}; the linear probe is "top1_probe"."""
    headless = {name: value for name, value in variables["params"].items() if name != "head"}
    test = self._extract(headless, self._eval_split)
    results = {}
    for count, split in self._train.items():
      weights, bias = ridge(*self._extract(headless, split), len(split.class_names))
      predicted = (test[0] @ weights + bias).argmax(-1)
      results[metric_name(count)] = float((predicted == test[1]).mean())
    return results

  def _extract(self, params, split):
    """(float64 [n, C], int [n]) of all images of a split."""
    batches = one_pass.over(split, self._config, self._mesh, lambda batch: self._features(params, batch))
    found = [(features[mask], labels[mask]) for features, labels, mask in batches]
    features, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return features.astype(np.float64), labels


def shots(entry: Mapping[str, Any]) -> tuple[int, ...]:
  """The numbers of images per class in an entry of config.evals."""
  return tuple(entry.get("shots", (1, 5, 10)))


def metric_name(count: int) -> str:
  """The name of the metric for `count` images per class; 0 is the linear probe."""
  return f"top1_{count}shot" if count else "top1_probe"


def ridge(features: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
  """The linear classifier with the best leave-one-out accuracy over eight strengths of regularization.

  features: float64 [n, C], not standardized; labels: int [n] -> (weights float64 [C, K], bias [K]).
  """
  mean, std = features.mean(0), features.std(0) + 1e-6
  x = (features - mean) / std
  targets = np.eye(num_classes)[labels]
  center = targets.mean(0)
  values, vectors = np.linalg.eigh(x.T @ x)
  values = np.maximum(values, 0.0)
  projected = x @ vectors
  correlation = projected.T @ (targets - center)
  best = None
  for strength in _STRENGTHS * max(values.mean(), 1e-12):
    shrunk = correlation / (values + strength)[:, None]
    leverage = (np.square(projected) / (values + strength)).sum(1) + 1 / len(x)
    fitted = center + projected @ shrunk
    # The output for each image of a classifier trained without that image.
    left_out = targets - (targets - fitted) / np.maximum(1 - leverage, 1e-9)[:, None]
    score = (left_out.argmax(1) == labels).mean(), -np.square(left_out - targets).mean()
    if best is None or score > best[0]:
      best = score, vectors @ shrunk
  weights = best[1] / std[:, None]
  return weights, center - mean @ weights


def _choose(split, count, seed):
  """A split with `count` random images of every class."""
  if not count:
    return split
  chosen = {label: [] for label in range(len(split.class_names))}
  missing = len(chosen)
  for index in np.random.default_rng(seed).permutation(len(split)):
    images = chosen[int(split.source[index]["label"])]
    if len(images) < count:
      images.append(int(index))
      missing -= len(images) == count
      if not missing:
        break
  for label, images in chosen.items():
    if len(images) < count:
      raise UserError(f"few-shot: {split.name} has {len(images)} images of {split.class_names[label]}, not {count}")
  return dataclasses.replace(split, source=_Subset(split.source, sorted(sum(chosen.values(), []))))


@dataclasses.dataclass(frozen=True)
class _Subset:
  """The examples of a source with the given indices."""

  source: object
  indices: list[int]

  def __len__(self):
    return len(self.indices)

  def __getitem__(self, index):
    return self.source[self.indices[index]]
