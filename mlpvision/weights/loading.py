"""Loads a file's arrays as the parameters of a module, and reports everything that does not match."""

import dataclasses
import os
from typing import Any

from absl import logging
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np

from mlpvision import models
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights import (
  dense,
  noted,
  preprocessings,
  reading,
  resize,
  shapes as shapes_lib,
  sources,
)
from mlpvision.weights.errors import WeightsError, listing, shortened
from mlpvision.weights.files import WeightFile
from mlpvision.weights.loaded import Info, Loaded
from mlpvision.weights.noted import RUN_OPTIONS


def load(
  source: str | os.PathLike,
  model_name: str | None = None,
  *,
  image_size: int | tuple[int, int] | None = None,
  seed: int = 0,
  ema: bool | None = None,
  preprocessing: Preprocessing | str | None = None,
  **overrides: Any,
) -> Loaded:
  """Loads known weights, downloaded once, or a file: (module, params, info).

  Args:
    source: a name in `known.KNOWN`; a path (.npz, .safetensors, .pth, .bin); a folder with one such file and, beside
      it, timm's config.json; or hf://OWNER/NAME, which is such a folder on the Hugging Face Hub.
    model_name: a key of `models.MODELS`, with the sizes of the file, or of `models.HEADS`. By default, the names and
      shapes in the file determine the family and the sizes.
    image_size: int or (height, width); adapts weights for another image size, see `resize`. S2-MLP and AS-MLP do not
      need it. Of a ViP that is not for 224 pixels, it is the size that the weights are for.
    seed: of a new head.
    ema: for a training checkpoint (.pth) that has the average of the weights (EMA) beside them: True takes the average,
      False the weights, None the average if there is one (of known weights: the weights, as published).
    preprocessing: what the weights expect of an image, or the name of known weights that expect the same. By default,
      it is what the file says or, if it does not, the config.json beside it.
    **overrides: attributes that the file does not determine (shift_size, directions, drop_path, dtype), and
      num_classes: None or 0 removes the head; a number other than the file's creates a new one and logs a warning.

  Raises:
    WeightsError: there is no such name or file, the download failed, or the file is damaged or not of this model.
    ValueError: unknown model_name or attribute.
  """
  if "num_classes" in overrides:
    overrides["num_classes"] = _checked_classes(source, overrides["num_classes"])
  found = sources.find(source)
  path, entry = found.path, found.entry
  if entry and ema is None:
    ema = False  # the published accuracies are of the weights
  file = WeightFile(path, ema)
  saved = _noted(file)
  if dense.is_dense(file.names) and (model_name is None or model_name in models.HEADS):
    return _load_dense(file, saved, model_name, seed, preprocessing, overrides)
  family, table, params = reading.read(file, saved["family"])
  _check_noted(file, family, params, saved)
  if entry:
    model_name = model_name or entry.model
    overrides = {**entry.overrides, **overrides}
  window_size = overrides.pop("window_size", None)
  beside = _beside(found.config, _num_classes(params))
  head = _choose_head(file, params, overrides)
  options = {**_options(file, family, table, params, saved, model_name), **overrides}
  if options.get("segments", 1) is None and image_size is not None:  # the shapes of ViP's parameters do not tell it
    options["segments"] = (image_size if isinstance(image_size, int) else image_size[0]) // options["patch_size"]
  unknown = [key for key, value in options.items() if value is None and key not in RUN_OPTIONS]
  if unknown:
    advice = f"Pass {' and '.join(f'{key}=...' for key in unknown)}, or the model's name."
    raise WeightsError(file.path, f"its shapes do not determine {', '.join(unknown)}", advice)
  name = model_name or min(family.variants, key=lambda name: len(_difference(name, options)))
  module = models.create(name, **{**_difference(name, options), "num_classes": _num_classes(params)})
  _check(file, module, table, params, name)
  if image_size is not None or window_size is not None:
    module, params = resize.fit(module, unflatten_dict(params, sep="/"), image_size, window_size)
    params = flatten_dict(params, sep="/")
  if head == "new":
    module = module.clone(num_classes=overrides["num_classes"])
    params.update(_new_head(module, params, seed))
  params = unflatten_dict(params, sep="/")
  if preprocessing is not None:
    view = preprocessings.choose(preprocessing, module, params)
  else:
    view = entry.preprocessing if entry else saved["preprocessing"] or (beside and beside.preprocessing())
  if view and image_size is not None:
    view = dataclasses.replace(view, image_size=image_size)
  names = (saved["class_names"] or (beside and beside.class_names)) if head == "file" else None
  on_imagenet = bool(entry or (beside and beside.on_imagenet and head == "file" and names is None))
  overrides = _difference(name, attributes(module))
  info = Info(path, table.name, name, overrides, head, view, entry, names, file.ema, on_imagenet)
  logging.info("Loaded %s from %s (%s naming).", name, path, table.name)
  if file.ema is not None:
    taken, other = ("average", "weights") if file.ema else ("weights", "average")
    text = "%s has weights and their average (EMA). Loaded: the %s; ema=%s loads the %s."
    logging.warning(text, path, taken, not file.ema, other)
  return Loaded(module, params, info)


def _load_dense(file, saved, model_name, seed, preprocessing, overrides):
  found = dense.load(file, saved, model_name, seed=seed, **overrides)
  names, view = saved["class_names"] if found.head == "file" else None, found.preprocessing
  if preprocessing is not None:
    view = preprocessings.choose(preprocessing, found.module, found.params, view)
  about = dict(preprocessing=view, class_names=names, ema=file.ema)
  info = Info(file.path, found.naming, found.model_name, found.overrides, found.head, **about)
  return Loaded(found.module, found.params, info, found.stats)


def _beside(config, classes):
  """The config.json beside a file; None, with a warning, if it is of another number of classes than the file's."""
  if config is None or config.num_classes in (None, classes) or not (classes or config.num_classes):
    return config
  text = "%s is for %d classes, but the weights have %s: it is of other weights, and is not used."
  logging.warning(text, config.path, config.num_classes, classes or "no head")
  return None


def _noted(file):
  """The metadata from `saving.save`."""
  try:
    return noted.read(file.metadata.get("mlpvision", "{}"))
  except (ValueError, RecursionError) as error:
    raise WeightsError(file.path, f"its mlpvision metadata is invalid ({error})") from error


def _check_noted(file, family, params, saved):
  """Raises WeightsError if what is noted cannot be of these parameters."""
  names, classes = saved["class_names"], _num_classes(params)
  try:
    saved["options"] = noted.options(family.module, saved["options"])
  except (ValueError, RecursionError) as error:
    raise WeightsError(file.path, f"its mlpvision metadata is invalid ({error})") from error
  if names is not None and classes is not None and len(names) != classes:
    raise WeightsError(file.path, f"its mlpvision metadata has {len(names)} class names for a head of {classes}")


def _checked_classes(source, value):
  """num_classes as an int, or None for no head."""
  if value is None or (isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0):
    return int(value) if value else None
  raise WeightsError(source, f"num_classes={value!r} is not a positive integer", "For features, pass None.")


def _choose_head(file, params, overrides):
  """The head to use, "file", "new" or "none"; removes the head from params unless it is "file"."""
  classes = _num_classes(params)
  wanted = overrides.get("num_classes", classes)
  if wanted is not None and wanted == classes:
    return "file"
  if "num_classes" not in overrides:
    advice = "Pass num_classes=N for a new one, or num_classes=None for features."
    raise WeightsError(file.path, "has no head (classifier)", advice)
  for path in [path for path in params if path.startswith("head/")]:
    del params[path]
  if wanted is None:
    return "none"
  had = f"a head of {classes} classes" if classes else "no head"
  logging.warning("%s has %s; the head of %d classes is newly initialized.", file.path, had, wanted)
  return "new"


def _options(file, family, table, params, saved, model_name):
  """The attributes from the file; the sizes are those of the model, if one is given."""
  options = saved["options"]
  if model_name is not None:
    wanted = type(models.create(model_name))  # ValueError for an unknown name
    if wanted is not family.module:
      found = f"{family.module.__name__} in {table.name} naming"
      raise WeightsError(file.path, f"contains weights of {found}, not of {model_name} ({wanted.__name__})")
    sizes = models.MODELS[model_name][1]
    options = {name: value for name, value in options.items() if name not in sizes}
  else:
    try:
      sizes = family.arguments(_shapes(params))
    except (LookupError, ValueError, ZeroDivisionError) as error:
      problem = f"lacks arrays that determine the sizes of {family.module.__name__}, or they have other shapes: {error}"
      raise WeightsError(file.path, problem) from error
  if wrong := noted.disagreement(options, sizes):
    raise WeightsError(file.path, f"its mlpvision metadata says {wrong}")
  return {**table.options, **sizes, **options}


def _num_classes(params):
  return params["head/kernel"].shape[-1] if "head/kernel" in params and params["head/kernel"].ndim else None


def _shapes(params):
  return {path: array.shape for path, array in params.items()}


def attributes(module: nn.Module) -> dict[str, Any]:
  """{attribute: value} of a module, without `RUN_OPTIONS`."""
  return {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name not in RUN_OPTIONS}


def _difference(name, options):
  """The options that differ from the variant's, and unknown ones, which `models.create` then rejects."""
  plain = models.create(name)
  return {key: value for key, value in options.items() if not hasattr(plain, key) or getattr(plain, key) != value}


def _check(file, module, table, params, name):
  """Raises WeightsError with all missing, unexpected and differently shaped parameters."""
  shapes = _shapes(params)
  try:
    expected = shapes_lib.expected(module, shapes)
  except ValueError as error:
    raise WeightsError(file.path, f"does not match {name}: {shortened(error, 1000)}") from error

  def label(path):
    theirs = table.theirs(path)
    return path if theirs is None or theirs[0] == path else f"{theirs[0]} ({path})"

  problems = {
    "missing": [label(path) for path in expected if path not in shapes],
    "unexpected": [label(path) for path in shapes if path not in expected],
    "of another shape": [
      f"{label(path)}: {shape} in the file, {expected[path]} in the model"
      for path, shape in shapes.items()
      if path in expected and shape != expected[path]
    ],
  }
  lists = [f"{kind} ({len(paths)}):\n{listing(paths)}" for kind, paths in problems.items() if paths]
  if lists:
    raise WeightsError(file.path, f"does not match {name}", "\n".join(lists))


def _new_head(module, params, seed):
  """{path: array} of the head as initialized by the module; jit removes the rest of the initialization."""
  size = resize.image_size_of(module, _shapes(params))

  def init(key):  # the images are never computed, and may be of any size
    # The head's random numbers depend on its name, not on the blocks before it.
    return shapes_lib.shortest(module).init(key, jnp.zeros((1, *size, 3), jnp.float32))["params"]["head"]

  head = jax.jit(init)(jax.random.key(seed))
  return flatten_dict({"head": jax.tree.map(np.array, head)}, sep="/")
