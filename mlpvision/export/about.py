"""What a program that runs an exported model must know of it."""

import dataclasses
from typing import Any

from mlpvision.trained import Trained


def of(trained: Trained) -> dict[str, Any]:
  """The preprocessing, class names and loss, as values of JSON."""
  return {**dataclasses.asdict(trained.preprocessing), "class_names": trained.class_names, "loss": trained.loss}
