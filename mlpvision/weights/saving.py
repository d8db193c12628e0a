"""Saves parameters with the names of timm or the official repositories."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict

from mlpvision import models
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights import dense, noted, tables
from mlpvision.weights.errors import WeightsError, listing
from mlpvision.weights.files import write
from mlpvision.weights.loading import attributes


def save(
  path: str | os.PathLike,
  module: nn.Module | str,
  params: Mapping[str, Any],
  preprocessing: Preprocessing | None = None,
  class_names: Sequence[str] | None = None,
  stats: Mapping[str, Any] | None = None,
) -> None:
  """Writes parameters that timm or the official code can load; `load` restores them exactly.

  .safetensors files have timm's names (Mixer, ResMLP, ViT, Swin), the official code's (AS-MLP, FF) or, for families
  without published weights (S2-MLP), our own, joined by dots; those of segmenters have mmsegmentation's, and those of
  detectors mmdetection's. The metadata has the attributes of the module, those of its backbone apart, the preprocessing
  and the class names. .npz, only for Mixer, is the layout of the published files, without metadata.

  Args:
    path: ends in .safetensors or .npz; replaced only when the new file is complete.
    module: the linen module, or the name of a variant.
    params: nested dict of arrays, such as `module.init(...)["params"]`, with or without the head.
    preprocessing: of evaluation images.
    class_names: of the head's outputs; None for numbers.
    stats: {"batch_stats": ...}, of a model with batch normalization.

  Raises:
    WeightsError: the number of class names is not the head's, parameters are not of this family, or the family cannot
      be written in the format of the suffix.
  """
  module = models.create(module) if isinstance(module, str) else module
  file_format = "npz" if str(path).endswith(".npz") else "safetensors"
  table = tables.table_for(models.family_of(module), file_format)
  if hasattr(module, "backbone"):
    table = dense.table(table, module) if file_format == "safetensors" else None
  if table is None:
    raise WeightsError(path, f"{type(module).__name__} has no .npz layout", "Use the suffix .safetensors.")
  flat = {**flatten_dict(params, sep="/"), **flatten_dict((stats or {}).get("batch_stats", {}), sep="/")}
  translated = {ours: table.theirs(ours) for ours in flat}
  strangers = [ours for ours, found in translated.items() if found is None]
  if class_names is not None and len(class_names) != module.num_classes:
    raise WeightsError(path, f"{len(class_names)} class names for a head of {module.num_classes}")
  try:
    class_names = noted.check_printable(noted.class_names(class_names and [str(name) for name in class_names]))
  except ValueError as error:
    raise WeightsError(path, f"cannot be written: {error}") from error
  if strangers or not flat:
    raise WeightsError(path, f"these parameters are not of {type(module).__name__}", listing(strangers))
  arrays = {name: transform(flat[ours]) for ours, (name, transform) in translated.items()}
  write(path, arrays, _metadata(module, preprocessing, class_names) if file_format == "safetensors" else None)


def _metadata(module, preprocessing, class_names):
  about = {}
  if hasattr(module, "backbone"):
    about["head_options"] = {name: value for name, value in attributes(module).items() if name != "backbone"}
    module = module.backbone
  about |= {"family": type(module).__name__, "options": attributes(module)}
  if preprocessing is not None:
    about["preprocessing"] = dataclasses.asdict(preprocessing)
  if class_names is not None:
    about["class_names"] = class_names
  return {"format": "pt", "mlpvision": json.dumps(about)}  # PyTorch's readers expect "pt"
