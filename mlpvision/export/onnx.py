"""Exports classifiers as ONNX, through the library jax2onnx."""

import json
import logging
import os
import types

import jax
import jax.export
import jax.numpy as jnp

from mlpvision import augment, tasks
from mlpvision.errors import UserError
from mlpvision.export import about, primitives
from mlpvision.trained import Trained
from mlpvision.weights.files import replacing

_LARGEST = 2**31 - 2**24  # bytes of parameters: protobuf has files below 2 GiB


def library() -> types.ModuleType:
  """jax2onnx, which is not imported before. Raises UserError if it is not installed."""
  try:
    import jax2onnx
  except ImportError as error:
    advice = "--format=onnx needs a library that is not installed: pip install 'mlpvision[onnx]'"
    raise UserError(advice) from error
  return jax2onnx


def to_onnx(trained: Trained, path: str | os.PathLike) -> None:
  """Writes a classifier with its weights as one ONNX file.

  Its input `images` is uint8 [b, S, S, 3], for any b, cropped and resized but not normalized; its output `logits` is
  float32 [b, K]. It computes in float32, also where training did not. The metadata have what `about.of` returns, each
  value as JSON.

  Raises UserError: jax2onnx is not installed, the model is no classifier or too large, or the file cannot be written.
  """
  if trained.task is not tasks.classification:
    raise UserError(
      f"{trained.source} is {trained.task.NOUN}, and --format=onnx is for classifiers: use --format=stablehlo"
    )
  if (size := sum(leaf.nbytes for leaf in jax.tree.leaves(trained.params))) > _LARGEST:
    raise UserError(f"{trained.source} has {size / 1e9:.1f} GB of parameters, and an ONNX file is below 2 GB")
  data = _converted(library(), trained)
  try:
    with replacing(path) as temporary, open(temporary, "wb") as file:
      file.write(data)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _converted(converter, trained):
  """The bytes of the file."""
  import onnx_ir
  from onnx_ir.passes import common

  view, model = trained.preprocessing, trained.model.clone(dtype=jnp.float32)
  shape = jax.export.symbolic_shape(f"b, {view.image_size}, {view.image_size}, 3")
  images = jax.ShapeDtypeStruct(shape, jnp.uint8)

  def logits(images):
    return model.apply(trained.variables, augment.normalize(images, view.mean, view.std))

  # Traced before the converter replaces functions of jnp and Flax by its own, whose values differ.
  traced = jax.make_jaxpr(logits)(images)
  # What it warns of, shapes without types, is not in the file.
  logging.getLogger("onnx_ir").setLevel(logging.ERROR)
  program = converter.to_onnx(
    lambda x: primitives.plain(traced, x)[0],
    [images],
    model_name=trained.model_name,
    return_mode="ir",
    input_names=["images"],
    output_names=["logits"],
  )
  common.RemoveUnusedNodesPass()(program)
  program.metadata_props.update({name: json.dumps(value) for name, value in about.of(trained).items()})
  return onnx_ir.serde.serialize_model(program).SerializeToString()
