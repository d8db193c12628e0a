"""Weights in: a file's arrays as the parameters of one of our modules, with everything that does not fit reported."""

import dataclasses
import difflib
import json
import os
from typing import Any, NamedTuple

from absl import logging
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np

from mlpvision import models
from mlpvision.weights import download, known, resize, tables
from mlpvision.weights.errors import WeightsError, listing
from mlpvision.weights.files import WeightFile

# Attributes that a file of weights has no say in.
RUN_OPTIONS = ("num_classes", "drop_path", "dropout", "remat", "dtype", "parent", "name")


@dataclasses.dataclass(frozen=True)
class Info:
  """What was loaded, and how.

  Attributes:
    path: of the file.
    naming: whose names it uses: "timm", "official", "npz", ...
    model_name, overrides: `models.create(model_name, num_classes=..., **overrides)` is the module.
    head: "file", or "new" (freshly initialised, since num_classes is not the file's), or "none".
    preprocessing: what the weights expect of an image (`known.Preprocessing`), or None where nobody said it.
    entry: of the table of known weights, if it was loaded by name.
    class_names: of the file's head, where the file has them and its head is used.
  """

  path: str
  naming: str
  model_name: str
  overrides: dict
  head: str
  preprocessing: known.Preprocessing | None = None
  entry: known.Known | None = None
  class_names: tuple[str, ...] | None = None


class Loaded(NamedTuple):
  """The module, its parameters (nested dict of float32 NumPy arrays) and an `Info`."""

  module: nn.Module
  params: dict
  info: Info


def load(
  source: str | os.PathLike,
  model_name: str | None = None,
  *,
  image_size: int | tuple[int, int] | None = None,
  seed: int = 0,
  **overrides: Any,
) -> Loaded:
  """Weights by the name of an entry in `known.KNOWN`, downloaded once, or from a file.

  Args:
    source: a name or a path (.npz, .safetensors, .pth).
    model_name: a key of `models.MODELS`, whose sizes the file then must have. Without it the family and the sizes
      are told from the names and shapes in the file.
    image_size: int or (height, width); adapts weights that are tied to one image size to another (see `resize`).
      Not needed for S2-MLP and AS-MLP.
    seed: of a new head.
    **overrides: attributes of the module, for what a file does not tell (shift_size, directions, drop_path, dtype)
      and num_classes: None drops the head, a number other than the file's makes a new one and says so.

  Returns:
    Loaded(module, params, info).

  Raises:
    WeightsError: no such name or file, no network, or a file that is damaged, of another model or not of weights.
    ValueError: unknown model_name or attribute.
  """
  entry = known.KNOWN.get(source) if isinstance(source, str) else None
  path = download.fetch(entry) if entry else _existing(source)
  file = WeightFile(path)
  saved = _saved_options(file)
  family, table, params = _read(file, saved["family"])
  if entry:
    model_name = model_name or entry.model
    overrides = {**entry.overrides, **overrides}
  window_size = overrides.pop("window_size", None)
  head = _choose_head(file, params, overrides)
  options = {**_options(file, family, table, params, saved, model_name), **overrides}
  unknown = [key for key, value in options.items() if value is None and key not in RUN_OPTIONS]
  if unknown:
    advice = f"Pass {' and '.join(f'{key}=...' for key in unknown)}, or the model's name."
    raise WeightsError(file.path, f"its shapes do not tell {', '.join(unknown)}", advice)
  name = model_name or min(family.variants, key=lambda name: len(_difference(name, options)))
  module = models.create(name, **{**_difference(name, options), "num_classes": _num_classes(params)})
  _check(file, module, table, params, name)

  if image_size is not None or window_size is not None:
    module, params = resize.fit(module, unflatten_dict(params, sep="/"), image_size, window_size)
    params = flatten_dict(params, sep="/")
  if head == "new":
    module = module.clone(num_classes=overrides["num_classes"])
    params.update(_new_head(module, params, seed))
  preprocessing = entry.preprocessing if entry else saved["preprocessing"]
  if preprocessing and image_size is not None:
    preprocessing = dataclasses.replace(preprocessing, image_size=image_size)
  names = saved["class_names"] if head == "file" else None
  info = Info(path, table.name, name, _difference(name, _fields(module)), head, preprocessing, entry, names)
  logging.info("Loaded %s from %s (%s naming).", name, path, table.name)
  return Loaded(module, unflatten_dict(params, sep="/"), info)


def _existing(source):
  path = os.fspath(source)
  if os.path.exists(path):
    return path
  near = difflib.get_close_matches(path, known.KNOWN, n=3)
  hint = f"Did you mean {' or '.join(near)}?" if near else f"Known names: {', '.join(known.KNOWN)}"
  raise WeightsError(path, "is neither a file nor the name of known weights", hint)


def _read(file, family_name):
  """(family, table, {our path: array}) of a file; family_name: as it is noted there, or None."""
  names = tables.strip_prefixes(file.names)
  renumbered = tables.renumber_pre_linen(names)
  names = {renumbered[short]: name for short, name in names.items()}
  family, table = tables.identify(list(names), family_name)
  if family is None:
    advice = f"Families: {', '.join(one.module.__name__ for one in models.FAMILIES)}. Its names begin so:\n"
    raise WeightsError(file.path, "holds weights of no known model", advice + listing(names, 5))
  params, strangers = {}, []
  for short, name in names.items():
    if table.skips(short):
      continue
    translated = table.ours(short)
    if translated is None:
      strangers.append(name)
      continue
    path, transform = translated
    array = file[name]
    try:
      array = transform(array)
    except (ValueError, IndexError) as error:
      raise WeightsError(file.path, f"{name} has the shape {array.shape}, which {path} cannot have") from error
    # In memory of our own: a view of the file would change, or crash, with the file.
    params[path] = np.require(array, requirements=["C", "O", "W"])
  if strangers:
    problem = f"was taken for {family.module.__name__} in {table.name} naming, but has arrays that are not of it"
    raise WeightsError(file.path, f"{problem} ({len(strangers)})", listing(strangers))
  return family, table, params


def _saved_options(file):
  """What `saving.save` noted: "family" (or None), "options", "preprocessing" (or None), "class_names" (or None)."""
  try:
    noted = json.loads(file.metadata.get("mlpvision", "{}"))
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in noted.get("options", {}).items()}
    names = noted.get("class_names")
    return {
      "family": noted.get("family"),
      "options": options,
      "preprocessing": known.preprocessing_from(noted.get("preprocessing")),
      "class_names": names and tuple(map(str, names)),
    }
  except (ValueError, TypeError, AttributeError) as error:
    raise WeightsError(file.path, f"its mlpvision metadata is not what save writes ({error})") from error


def _choose_head(file, params, overrides):
  """Which head to use: "file", "new" or "none". In the latter two cases params lose theirs."""
  classes = _num_classes(params)
  wanted = overrides.get("num_classes", classes)
  if wanted is not None and wanted == classes:
    return "file"
  if "num_classes" not in overrides:
    raise WeightsError(
      file.path, "has no head (classifier)", "Pass num_classes=N for a new one, or num_classes=None for features."
    )
  for path in [path for path in params if path.startswith("head/")]:
    del params[path]
  if wanted is None:
    return "none"
  had = f"a head of {classes} classes" if classes else "no head"
  logging.warning("%s has %s; the head of %d classes is newly initialised.", file.path, had, wanted)
  return "new"


def _options(file, family, table, params, saved, model_name):
  """The attributes that the file decides: all sizes, or without contradicting a given model's."""
  noted = saved["options"]
  if model_name is not None:
    if model_name not in models.MODELS:
      models.create(model_name)  # raises, with the nearest names
    wanted, sizes = models.MODELS[model_name]
    if wanted is not family.module:
      found = f"{family.module.__name__} in {table.name} naming"
      raise WeightsError(file.path, f"holds weights of {found}, not of {model_name} ({wanted.__name__})")
    return {**table.options, **noted, **sizes}
  try:
    sizes = family.arguments(_shapes(params))
  except (LookupError, ValueError, ZeroDivisionError) as error:
    raise WeightsError(
      file.path, f"lacks what the sizes of {family.module.__name__} are told from, or has it in another shape: {error}"
    ) from error
  return {**table.options, **sizes, **noted}


def _num_classes(params):
  return params["head/kernel"].shape[-1] if "head/kernel" in params else None


def _shapes(params):
  return {path: array.shape for path, array in params.items()}


def _fields(module):
  """{attribute: value}, without what a file has no say in."""
  return {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name not in RUN_OPTIONS}


def _difference(name, options):
  """What to pass to models.create(name, ...) to get these options; unknown ones too, which it then refuses."""
  plain = models.create(name)
  return {key: value for key, value in options.items() if not hasattr(plain, key) or getattr(plain, key) != value}


def _check(file, module, table, params, name):
  """WeightsError with the missing, unexpected and differently shaped leaves, if there are any."""
  expected = _expected_shapes(module, params)
  shapes = _shapes(params)

  def label(path):
    theirs = table.theirs(path)
    return path if theirs is None or theirs[0] == path else f"{theirs[0]} ({path})"

  missing = [label(path) for path in expected if path not in shapes]
  unexpected = [label(path) for path in shapes if path not in expected]
  reshaped = [
    f"{label(path)}: {shape} in the file, {expected[path]} in the model"
    for path, shape in shapes.items()
    if path in expected and shape != expected[path]
  ]
  problems = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
  if any(items for _, items in problems):
    lists = [f"{kind} ({len(items)}):\n{listing(items)}" for kind, items in problems if items]
    raise WeightsError(file.path, f"does not fit {name}", "\n".join(lists))


def _expected_shapes(module, params):
  """{our path: shape} of the module, by tracing its init on an image that the parameters are for."""
  images = jax.ShapeDtypeStruct((1, *resize.image_size_of(module, params), 3), jnp.float32)
  tree = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), images)
  return {path: leaf.shape for path, leaf in flatten_dict(tree["params"], sep="/").items()}


def _new_head(module, params, seed):
  """The head's leaves as `init` makes them; jit drops the rest of init as unused."""
  images = jnp.zeros((1, *resize.image_size_of(module, params), 3), jnp.float32)
  head = jax.jit(lambda key: module.init(key, images)["params"]["head"])(jax.random.key(seed))
  return flatten_dict({"head": jax.tree.map(np.array, head)}, sep="/")
