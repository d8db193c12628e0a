"""Weights out: our parameters under the names of timm or of the official repositories."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict

from mlpvision import models
from mlpvision.weights import known, tables
from mlpvision.weights.errors import WeightsError, listing
from mlpvision.weights.files import write
from mlpvision.weights.loading import RUN_OPTIONS


def save(
  path: str | os.PathLike,
  module: nn.Module | str,
  params: Mapping[str, Any],
  preprocessing: known.Preprocessing | None = None,
  class_names: Sequence[str] | None = None,
) -> None:
  """Writes parameters that timm or the official code can load, and `load` gives back exactly.

  .safetensors holds timm's names (Mixer, ResMLP, ViT, Swin), the official code's (AS-MLP, FF) or, for a family without
  published weights (S2-MLP), our own joined by dots. The metadata has the attributes, the preprocessing and the
  class names. .npz, for Mixer only, is the layout of the published files, and has no place for these.

  Args:
    path: ends in .safetensors or .npz; replaced only when the new file is complete.
    module: the linen module, or the name of a variant.
    params: nested dict of arrays, as `module.init(...)["params"]`; with or without the head.
    preprocessing: a `known.Preprocessing`.
    class_names: of the head's outputs; without them whoever loads the file has numbers for names.

  Raises:
    WeightsError: not as many names as the head has outputs; leaves that are not of this family, or a suffix that it
      cannot be written with.
  """
  module = models.create(module) if isinstance(module, str) else module
  file_format = "npz" if str(path).endswith(".npz") else "safetensors"
  table = tables.table_for(models.family_of(module), file_format)
  if table is None:
    raise WeightsError(path, f"{type(module).__name__} has no .npz layout", "Use the suffix .safetensors.")
  arrays, strangers = {}, []
  for ours, array in flatten_dict(params, sep="/").items():
    translated = table.theirs(ours)
    if translated is None:
      strangers.append(ours)
    else:
      name, transform = translated
      arrays[name] = transform(array)
  if class_names is not None and len(class_names) != module.num_classes:
    raise WeightsError(path, f"{len(class_names)} class names for a head of {module.num_classes}")
  if strangers or not arrays:
    raise WeightsError(path, f"these parameters are not of {type(module).__name__}", listing(strangers))
  write(path, arrays, _metadata(module, preprocessing, class_names) if file_format == "safetensors" else None)


def _metadata(module, preprocessing, class_names):
  options = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name not in RUN_OPTIONS}
  noted = {"family": models.family_of(module).module.__name__, "options": options}
  if preprocessing is not None:
    noted["preprocessing"] = known.preprocessing_to(preprocessing)
  if class_names is not None:
    noted["class_names"] = list(class_names)
  return {"format": "pt", "mlpvision": json.dumps(noted)}  # "pt" is what readers made for PyTorch look for
