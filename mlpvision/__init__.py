"""MLP vision models in JAX/Flax: train, evaluate and study them, on anything from a laptop to a TPU pod.

```
import mlpvision

trained = mlpvision.load("mixer_b16.goog_in1k")  # a published name, a weight file, or a run's workdir
trained.predict("photo.jpg")
model, params = trained
```
"""

from __future__ import annotations

import fnmatch
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from mlpvision.preprocessing import Preprocessing
  from mlpvision.trained import Trained


__all__ = ["__version__", "list_models", "list_weights", "load"]
__version__ = "0.1.0"  # pyproject.toml reads it from here


def list_models(pattern: str = "*") -> list[str]:
  """Names for `mlpvision.models.create`, e.g. of list_models("s2mlp_*")."""
  from mlpvision import models

  return fnmatch.filter(models.MODELS, pattern)


def list_weights(pattern: str = "*") -> list[str]:
  """Names of published weights for `load`, e.g. of list_weights("mixer*")."""
  from mlpvision import weights

  return fnmatch.filter(weights.KNOWN, pattern)


def load(
  source: str | os.PathLike, *, ema: bool | None = None, preprocessing: Preprocessing | str | None = None
) -> Trained:
  """Loads a trained model with its preprocessing and class names.

  source: a run's workdir or one of its checkpoints; a weight file, or a folder with one and timm's config.json; a name
    from `list_weights`; or hf://OWNER/NAME on the Hugging Face Hub.
  ema: True loads the average of the parameters (EMA), False the parameters. None loads the parameters of a run and, of
    a PyTorch checkpoint that has both, the average.
  preprocessing: of weights that do not say theirs, or instead of it: a `weights.Preprocessing`, or a name from
    `list_weights` of weights that expect the same of an image.

  Raises `mlpvision.errors.UserError`: no model can be loaded from `source`.
  """
  from mlpvision import trained

  return trained.load(source, ema=ema, preprocessing=preprocessing)
