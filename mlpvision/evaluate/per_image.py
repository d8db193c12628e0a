"""The result of every image of a classifier, for the analysis of its errors."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlpvision import tasks
from mlpvision.evaluate.accuracy import Accuracy

COLUMNS = ("index", "file", "label", "prediction", "probability", "loss")


class PerImage(Accuracy):
  """The accuracy, which also keeps what it adds up: `rows` of the last `run`, the same on every process."""

  numbered = True

  def partial(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> tuple[dict[str, jax.Array], ...]:
    """(the sums of `Accuracy`, what `rows` are made of: [b] or, of labels, [b] or [b, K])."""
    task, logits = tasks.of(self.config), outputs if self.classes is None else outputs[:, jnp.asarray(self.classes)]
    probabilities = task.probabilities(logits, self.config.loss)
    found = {name: batch[name] for name in ("index", "label", "mask")}
    found |= {"prediction": logits.argmax(-1), "probability": probabilities.max(-1)}
    return super().partial(outputs, batch), {**found, "loss": task.losses(logits, batch["label"], self.config.loss)}

  def parts(self, variables: Mapping[str, Any]) -> Iterator[Any]:
    """Keeps the rows of each batch."""
    self.rows = []
    for sums, found in super().parts(variables):
      self.rows += [self._row({name: x[i] for name, x in found.items()}) for i in np.flatnonzero(found["mask"])]
      yield sums
    self.rows.sort(key=lambda row: row["index"])

  def _row(self, found):
    names, index = self.split.class_names, int(found["index"])
    labels = np.flatnonzero(found["label"]) if found["label"].ndim else [int(found["label"])]
    return {
      "index": index,
      "file": self.split.file_name(index),
      "label": "|".join(names[i] for i in labels),
      "prediction": names[int(found["prediction"])],
      "probability": float(found["probability"]),
      "loss": float(found["loss"]),
    }
