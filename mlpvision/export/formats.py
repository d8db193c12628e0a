"""Trained models as files that other programs run: StableHLO, and weights in safetensors."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp

from mlpvision import augment, weights
from mlpvision.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(trained: Trained, path: str | os.PathLike) -> None:
  """Writes the model, weights included, as portable StableHLO (`jax.export`), and PATH.json with what belongs to it.

  `jax.export.deserialize(bytes).call(images)` takes uint8 [b, S, S, 3] for any b, cropped and resized but not
  normalised, and gives float32 logits [b, K]; on CPU, GPU and TPU.

  Args:
    trained: a `trained.Trained`.
    path: of the file.
  """
  (batch_size,) = jax.export.symbolic_shape("b")
  size = trained.preprocessing.image_size
  images = jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8)
  exported = jax.export.export(jax.jit(_outputs_of(trained)), platforms=PLATFORMS)(images)
  with open(path, "wb") as file:
    file.write(exported.serialize())
  _describe(trained, f"{path}.json")


def to_safetensors(trained: Trained, path: str | os.PathLike) -> None:
  """Writes the parameters under timm's or the official code's names, with all that `weights.save` notes beside them."""
  weights.save(path, trained.model, trained.params, trained.preprocessing, trained.class_names)


FORMATS = {"stablehlo": to_stablehlo, "safetensors": to_safetensors}


def _outputs_of(trained):
  view = trained.preprocessing

  def outputs(images):
    return trained.model.apply({"params": trained.params}, augment.normalize(images, view.mean, view.std))

  return outputs


def _describe(trained, path):
  about = {**dataclasses.asdict(trained.preprocessing), "class_names": trained.class_names, "loss": trained.loss}
  with open(path, "w") as file:
    json.dump(about, file, indent=1)
