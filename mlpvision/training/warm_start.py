"""Warm starts: parameters of another run or a weight file, adapted to a run's model, without optimizer state.

A segmenter or a detector can start from a classifier, which gives it its backbone, or from another segmenter or
detector, which gives it all parts that both have: the backbone and the norms of its maps, or more.
"""

import dataclasses
import re
from typing import Any

from flax.traverse_util import flatten_dict
import jax
from jax.sharding import NamedSharding, PartitionSpec as P
import ml_collections
import numpy as np

from mlpvision import models, tasks, trained as trained_lib
from mlpvision.data import imagenet
from mlpvision.errors import UserError
from mlpvision.models import swin
from mlpvision.weights import resize
from mlpvision.weights.errors import listing
from mlpvision.weights.loading import RUN_OPTIONS

_CLASSIFIER = re.compile(r"^(head|\w+_head/conv_seg|bbox_head\w*/fc_(cls|reg)|mask_head\w*/conv_logits)/")
# Attributes of heads that sizes of parameters follow from.
_SIZES = ("channels", "auxiliary_channels", "head_dim")
# Of a classifier, which its maps may not need.
_OF_CLASSIFIER = ("backbone/head/", "backbone/norm/")


def open_source(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, class_names: tuple[str, ...]
) -> trained_lib.Trained:
  """Loads the `trained.Trained` in config.init_from, with its parameters in host memory.

  mesh, class_names: of the new run; a weight file with another number of classes is loaded without its head.

  Raises UserError: no model can be loaded from init_from, or it is of another family.
  """
  # Replicated arrays can be read by every process, on any mesh.
  options = dict(sharding=NamedSharding(mesh, P()), num_classes=len(class_names))
  try:
    found = trained_lib.open_source(config.init_from, **options)
  except UserError as error:
    raise UserError(f"init_from: {error}") from error
  own = tasks.make_model(config, 1)
  family, wanted = type(_backbone(found.model)), type(_backbone(own))
  if family is not wanted or (_is_dense(found.model) and not _is_dense(own)):
    field = "backbone" if _is_dense(own) else "name"
    what = f"{type(found.model).__name__} on {family.__name__}" if _is_dense(found.model) else family.__name__
    advice = f": set --config.model.{field}={found.model_name}" if not _is_dense(found.model) else ""
    own = f"model.{field}={config.model[field]} is a {wanted.__name__}"
    raise UserError(f"init_from={config.init_from} is a {what}, but {own}{advice}")
  return dataclasses.replace(found, variables=jax.device_get(found.variables))


def completed(config: ml_collections.ConfigDict, source: trained_lib.Trained) -> ml_collections.ConfigDict:
  """A copy of the config, with the model options of `source` that config.model does not have.

  A config that only names a family can therefore use weights of any size. Raises UserError if the weights cannot be
  adapted to data.image_size.
  """
  model, _ = _fit(config, source)
  options = _other_options(config, model)
  return with_model_options(config, {name: value for name, value in options.items() if name not in config.model})


def with_model_options(config: ml_collections.ConfigDict, options: dict[str, Any]) -> ml_collections.ConfigDict:
  """A copy of the config, with these options added to config.model."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name, value in options.items():
      config.model[name] = tuple(value) if isinstance(value, list) else value
  return config


def parameters(
  config: ml_collections.ConfigDict, source: trained_lib.Trained, abstract: Any, class_names: tuple
) -> tuple[dict[str, np.ndarray], str]:
  """The parameters of `source` that the new run starts from: ({"path/of/leaf": float32 array}, text for the log).

  These are all parameters, except for the head if the classes differ in name or order. Position embeddings and
  token-mixing MLPs are adapted to the image size by `weights.resize`. Statistics of batch normalization have paths such
  as "batch_stats/decode_head/bottleneck/bn/mean".

  config: of the new run, from `completed`.
  abstract, class_names: shapes of the parameters, and classes, of the new run.

  Raises UserError: the parameters do not fit the model.
  """
  before = {path: np.asarray(array) for path, array in flatten_dict(source.params, sep="/").items()}
  model, params = _fit(config, source)
  loaded = flatten_dict(params, sep="/")
  expected = {path: leaf.shape for path, leaf in flatten_dict(abstract, sep="/").items()}
  same_labels = _has_head_of(source, tuple(class_names))
  new = [path for path in expected if _CLASSIFIER.search(path) and not same_labels]
  if "backbone" in abstract:
    if not _is_dense(source.model):
      before, loaded = ({f"backbone/{path}": array for path, array in tree.items()} for tree in (before, loaded))
      loaded = {path: x for path, x in loaded.items() if path in expected or not path.startswith(_OF_CLASSIFIER)}
    shared = {_part(path) for path in expected} & {_part(path) for path in loaded}
    new = [path for path in expected if path in new or _part(path) not in shared]
    loaded = {path: array for path, array in loaded.items() if _part(path) in shared}
  has_head = any(_CLASSIFIER.search(path) for path in loaded)
  loaded = {path: array for path, array in loaded.items() if path not in new}
  _check_shapes(config, model, loaded, {path: shape for path, shape in expected.items() if path not in new})
  resized = [path for path in loaded if before[path].shape != loaded[path].shape]
  text = _describe(config, source, model, loaded, _summarized(new), resized)
  if "backbone" in abstract and _is_dense(source.model):
    for path, array in flatten_dict(source.variables.get("batch_stats", {}), sep="/").items():
      if _part(path) in shared:
        loaded[f"batch_stats/{path}"] = np.asarray(array)
  return loaded, "\n".join([text, *(_about_head(source, class_names, same_labels) if has_head else [])])


def _part(path):
  return path.partition("/")[0]


def _summarized(paths):
  """The modules of a head and its arrays by name, if there are only a few."""
  return paths if len(paths) <= 4 else [f"{name}/..." for name in dict.fromkeys(map(_part, paths))]


def _is_dense(module):
  return hasattr(module, "backbone")


def _backbone(module):
  return getattr(module, "backbone", module)


def _has_head_of(source, class_names):
  """Whether the head of `source` is of these classes, in this order."""
  if source.info is not None and source.info.head != "file":
    return False
  # A file without class names can be of numbered classes or, if it has their number, of ImageNet's.
  return class_names in (source.class_names, None if _names(source) else imagenet.head_classes(len(class_names)))


def _names(source):
  """The names of the classes that `source` itself gives to its head, or None."""
  known = source.info is None or source.info.on_imagenet or source.info.class_names
  return source.class_names if known else None


def _about_head(source, class_names, same_labels):
  """Lines for the log, where the number of classes alone would let the head fit."""
  if len(source.class_names) != len(class_names) or (source.info is not None and source.info.head != "file"):
    return []
  if not _names(source):
    fate = "is taken to be of the same classes" if same_labels else "is not used"
    return [f"note: these weights do not name the classes of their head, which {fate}"]
  return [] if same_labels else [f"note: the head of these weights is not used: {_first_other(source, class_names)}"]


def _first_other(source, class_names):
  i = next(i for i, pair in enumerate(zip(source.class_names, class_names, strict=True)) if len(set(pair)) == 2)
  return f"its class {i} is {source.class_names[i]!r}, and {class_names[i]!r} here"


def _fit(config, source):
  """(module, params) of `source`, adapted to the new run's image size and, for Swin, window size."""
  own, params = _backbone(tasks.make_model(config, 1)), jax.tree.map(np.asarray, source.params)
  window = own.window_size if isinstance(own, swin.Swin) else None
  size = None if tasks.of(config) is tasks.detection else config.data.image_size  # detectors take any
  try:
    model, fitted = resize.fit(_backbone(source.model), params.get("backbone", params), size, window)
    if not _is_dense(source.model):
      return model, fitted
    return source.model.clone(backbone=model), {**params, "backbone": fitted}
  except ValueError as error:
    raise UserError(f"init_from={config.init_from} with data.image_size={config.data.image_size}: {error}") from error


def _options(module):
  """{attribute: value} of the attributes that parameters depend on, of a backbone and a head."""
  free, backbone = (*RUN_OPTIONS, *models.family_of(module).free), _backbone(module)
  found = {f.name: getattr(backbone, f.name) for f in dataclasses.fields(backbone) if f.name not in free}
  return found | {name: getattr(module, name) for name in _SIZES if _is_dense(module) and hasattr(module, name)}


def _other_options(config, module):
  """The `_options` of a module that differ from those of the config's model."""
  found, own = _comparable_options(config, module)
  return {name: value for name, value in found.items() if _as_tuple(value) != _as_tuple(own[name])}


def _comparable_options(config, module):
  """The `_options` of a module and of the config's model; only of the backbone, if their heads are of other tasks."""
  own = tasks.make_model(config, 1)
  return _options(module if tasks.name_of(module) == tasks.name_of(own) else _backbone(module)), _options(own)


def _check_shapes(config, model, loaded, expected):
  """Raises UserError with the first leaves that do not fit, and the config fields that would make them fit."""
  problems = [f"{path}: not in the weights" for path in expected if path not in loaded]
  problems += [f"{path}: not in the model" for path in loaded if path not in expected]
  problems += [
    f"{path}: {array.shape} in the weights, {expected[path]} in the model"
    for path, array in loaded.items()
    if path in expected and array.shape != expected[path]
  ]
  if not problems:
    return
  fields = [f"--config.model.{name}={_as_tuple(value)}" for name, value in _other_options(config, model).items()]
  advice = f"These weights would fit with {' '.join(fields)}" if fields else "Use weights of the same model."
  what = f"init_from={config.init_from} does not fit {config.model.name} ({len(problems)} arrays)"
  raise UserError(f"{what}:\n{listing(problems)}\n{advice}")


def _describe(config, source, model, loaded, new, resized):
  step = "" if source.step is None else f", step {source.step}"
  lines = [f"starting from {config.init_from}{step}: {len(loaded)} arrays; new: {', '.join(new) or 'none'}"]
  if resized:
    more = f" and {len(resized) - 1} more" if resized[1:] else ""
    lines.append(f"adapted to {config.data.image_size} pixels: {resized[0]}{more}")
  options, own = _comparable_options(config, model)
  wanted = {f"model.{name}": value for name, value in own.items()}
  wanted |= {f"data.{name}": config.data[name] for name in ("mean", "std")}
  # Options that do not follow from a file's names and shapes are our defaults, and say nothing about the weights.
  known = options if source.info is None else source.info.overrides
  theirs = {f"model.{name}": options[name] for name in known if name in options}
  if source.preprocessing:
    theirs |= {f"data.{name}": getattr(source.preprocessing, name) for name in ("mean", "std")}
  for field, value in theirs.items():
    if _as_tuple(value) != _as_tuple(wanted[field]):
      lines.append(f"note: {field} was {_as_tuple(value)} for these weights, and is {_as_tuple(wanted[field])} here")
  return "\n".join(lines)


def _as_tuple(value):
  return tuple(value) if isinstance(value, tuple | list) else value
