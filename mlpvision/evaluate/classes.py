"""Which class of the weights is which class of a dataset: told by their names."""

from collections.abc import Sequence
import os

import numpy as np

from mlpvision.errors import UserError


def match(
  model_names: Sequence[str], dataset_names: Sequence[str], *, weights: str | os.PathLike, dataset: str
) -> tuple[np.ndarray | None, str | None]:
  """How to score weights on a dataset.

  Args:
    model_names: of the weights' classes, in the order of the logits; "0", "1", ... where nobody named them.
    dataset_names: what the dataset's labels number.
    weights, dataset: for the message.

  Returns:
    (classes, note): `classes` is int [k], the model's class for each of the dataset's; `note` says what was done. Both
    are None where the two have the same classes in the same order.

  Raises:
    UserError: the dataset has classes that the weights have not.
  """
  model_names, dataset_names = tuple(model_names), tuple(dataset_names)
  if model_names == dataset_names:
    return None, None
  numbers = {name: i for i, name in enumerate(model_names)}
  unknown = [name for name in dataset_names if name not in numbers]
  if not unknown:
    classes = np.array([numbers[name] for name in dataset_names], np.int32)
    if len(classes) == len(model_names):
      return classes, "the dataset has the weights' classes in another order; matched by name"
    return classes, f"scored over the dataset's {len(classes):,} of the weights' {len(model_names):,} classes"
  if len(model_names) == len(dataset_names):
    for side, names in (("weights have", model_names), ("dataset has", dataset_names)):
      if names == tuple(str(i) for i in range(len(names))):
        return None, f"the {side} numbers for classes: taken to be in the other's order"
  raise UserError(
    f"{dataset} has {len(dataset_names):,} classes, the weights in {weights} {len(model_names):,}, and"
    f" {len(unknown):,} of the dataset's are not among them: {', '.join(unknown[:5])}{', ...' if unknown[5:] else ''}"
  )
