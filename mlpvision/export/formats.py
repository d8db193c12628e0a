"""Exports trained models: as StableHLO, or weights alone as safetensors."""

import dataclasses
import json
import os
import pathlib

import jax
import jax.numpy as jnp

from mlpvision import augment, weights
from mlpvision.trained import Trained


def to_stablehlo(trained: Trained, path: str | os.PathLike) -> None:
  """Writes the model with its weights as portable StableHLO (`jax.export`).

  `jax.export.deserialize(bytes).call(images)` maps uint8 [b, S, S, 3], for any b, cropped and resized but not
  normalized, to float32 logits [b, K], on CPU, GPU and TPU. PATH.json has the preprocessing, class names and loss.

  A segmenter maps uint8 [b, H, W, 3], resized but not normalized, to float32 logits [b, H / 4, W / 4, K], for any H and
  W that 32 divides; on a backbone for one image size, for this size, S.
  """
  view, shape = trained.preprocessing, "b, s, s, 3".replace("s", str(trained.preprocessing.image_size))
  backbone = getattr(trained.model, "backbone", None)
  if backbone is not None and backbone.any_size:
    shape = "b, 32*h, 32*w, 3"
  images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.uint8)

  def outputs(images):
    return trained.model.apply(trained.variables, augment.normalize(images, view.mean, view.std))

  exported = jax.export.export(jax.jit(outputs), platforms=("cpu", "cuda", "tpu"))(images)
  pathlib.Path(path).write_bytes(exported.serialize())
  about = {**dataclasses.asdict(view), "class_names": trained.class_names, "loss": trained.loss}
  pathlib.Path(f"{path}.json").write_text(json.dumps(about, indent=1))


def to_safetensors(trained: Trained, path: str | os.PathLike) -> None:
  """Writes the parameters with timm's, the official code's or, of a segmenter, mmsegmentation's names.

  The file also has the metadata that `weights.save` stores.
  """
  stats = {name: tree for name, tree in trained.variables.items() if name != "params"}
  weights.save(path, trained.model, trained.params, trained.preprocessing, trained.class_names, stats)


FORMATS = {"stablehlo": to_stablehlo, "safetensors": to_safetensors}
