"""Exports trained models: as StableHLO or ONNX, or weights alone as safetensors."""

import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp

from mlpvision import augment, tasks, weights
from mlpvision.export import about as about_lib, onnx
from mlpvision.trained import Trained


def to_stablehlo(trained: Trained, path: str | os.PathLike) -> None:
  """Writes the model with its weights as portable StableHLO (`jax.export`).

  `jax.export.deserialize(bytes).call(images)` maps uint8 [b, S, S, 3], for any b, cropped and resized but not
  normalized, to float32 logits [b, K], on CPU, GPU and TPU. PATH.json has the preprocessing, class names and loss.

  A segmenter maps uint8 [b, H, W, 3], resized but not normalized, to float32 logits [b, H / 4, W / 4, K], for any H and
  W that 32 divides; on a backbone for one image size, for this size, S.

  A detector's `call(images, sizes)` maps uint8 [b, H, W, 3] and int32 [b, 2] to a dict of boxes, scores, labels and, of
  a model with masks, masks, see `two_stage.Detections`. An image is resized but not normalized, in the top left corner
  of the canvas, which it fills up to its (height, width) in `sizes`. Anchors fix the canvas: (H, W) are the shorter and
  longer side of data.canvas, so that an image that is higher than wide must be resized to fit H. PATH.json has it.
  """
  is_detector = trained.task is tasks.detection
  function, inputs = _detector(trained) if is_detector else _logits(trained)
  exported = jax.export.export(jax.jit(function), platforms=("cpu", "cuda", "tpu"))(*inputs)
  pathlib.Path(path).write_bytes(exported.serialize())
  about = about_lib.of(trained)
  if is_detector:
    about["canvas"] = inputs[0].shape[1:3]
  pathlib.Path(f"{path}.json").write_text(json.dumps(about, indent=1))


def _logits(trained):
  """(function of images, shapes of its inputs)."""
  view, backbone = trained.preprocessing, getattr(trained.model, "backbone", None)
  takes_any_size = backbone is not None and backbone.any_size
  shape = "b, 32*h, 32*w, 3" if takes_any_size else f"b, {view.image_size}, {view.image_size}, 3"
  images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.uint8)
  return lambda images: trained.model.apply(trained.variables, augment.normalize(images, view.mean, view.std)), [images]


def _detector(trained):
  """(function of images and their sizes, shapes of its inputs)."""
  config, scope = trained.config_of_task, jax.export.SymbolicScope()
  height, width = sorted(config.data.canvas)

  def detections(images, sizes):
    apply = functools.partial(trained.model.apply, trained.variables)
    found = trained.task.outputs(apply, {"image": images, "size": sizes}, config)
    return {name: value for name, value in found._asdict().items() if value is not None}

  inputs = {f"b, {height}, {width}, 3": jnp.uint8, "b, 2": jnp.int32}
  return detections, [
    jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape, scope=scope), dtype) for shape, dtype in inputs.items()
  ]


def to_safetensors(trained: Trained, path: str | os.PathLike) -> None:
  """Writes the parameters with timm's, the official code's, mmsegmentation's or mmdetection's names.

  The file also has the metadata that `weights.save` stores.
  """
  stats = {name: tree for name, tree in trained.variables.items() if name != "params"}
  weights.save(path, trained.model, trained.params, trained.preprocessing, trained.class_names, stats)


FORMATS = {"stablehlo": to_stablehlo, "onnx": onnx.to_onnx, "safetensors": to_safetensors}
