"""Matches the classes of weights and datasets by name."""

from collections.abc import Sequence
import os

import numpy as np

from mlpvision.errors import UserError


def match(
  model_names: Sequence[str], dataset_names: Sequence[str], *, weights: str | os.PathLike, dataset: str
) -> tuple[np.ndarray | None, str | None]:
  """(classes, note): int [k], the model's class for each class of the dataset, and how they were matched.

  Both are None if the classes are the same, in the same order.

  Args:
    model_names: in the order of the logits; "0", "1", ... for weights without class names.
    dataset_names: in the order of the labels.
    weights, dataset: names for messages.

  Raises:
    UserError: the dataset has classes that the weights do not have.
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
