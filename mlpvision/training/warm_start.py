"""Parameters to start a run from: another run's, or published weights, made to fit the run's model."""

import dataclasses
import difflib
import os
from typing import Any

from flax.traverse_util import flatten_dict
import jax
from jax.sharding import NamedSharding, PartitionSpec as P
import ml_collections
import numpy as np

from mlpvision import checkpoints, sharding, weights
from mlpvision.errors import UserError
from mlpvision.models import swin
from mlpvision.training.setup import Setup, make_model
from mlpvision.weights import resize
from mlpvision.weights.errors import listing
from mlpvision.weights.loading import RUN_OPTIONS

# Attributes of modules that do not change what parameters mean.
_FREE = (*RUN_OPTIONS, "drop_path_rescale", "head_bias_init", "layer_scale_init", "affine_init")


@dataclasses.dataclass(frozen=True)
class _Source:
  """A model, its nested parameters, and what is known about them.

  name: the model's, in `models.MODELS`. known: its attributes that its source tells, and does not leave to defaults.
  view: {"mean", "std"} of its images. step: None for files. same_labels: whether its head is for the run's classes.
  """

  name: str
  model: Any
  params: Any
  known: dict
  view: dict
  step: int | None
  same_labels: bool


def options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """What the model in config.init_from, at the run's image size, has other than config.model, which does not name it.

  With these a config that names a family alone takes weights of any size; a field that it has goes before them.

  Args:
    config: the whole config.

  Returns:
    {attribute of the model: value}; none where the two are of different families, which `read` refuses.

  Raises:
    UserError: nothing usable there, or a model that cannot be made for this image size.
  """
  own = make_model(config.model, None)
  found = _open(config.init_from, sharding.make_mesh(), None)
  if type(found.model) is not type(own):
    return {}
  model, _ = _fit(config.init_from, found, own, config.data.image_size)
  own = _options(own)
  return {
    name: value
    for name, value in _options(model).items()
    if name not in config.model and _plain(value) != _plain(own[name])
  }


def read(source: str, setup: Setup) -> tuple[dict[str, np.ndarray], str]:
  """The parameters in `source` that the model of a run takes over.

  All are, but the head where the labels are others; position embeddings and token-mixing MLPs are made for the run's
  image size first, as `weights.resize` does it. No optimizer state is read.

  Args:
    source: a run's workdir or one of its checkpoints; or weights: a file, or a name in `weights.KNOWN`.
    setup: training.setup.Setup.

  Returns:
    ({"path/of/leaf": float32 NumPy array}, one or more lines that say what was taken and what is new).

  Raises:
    UserError: nothing usable there, or parameters of another model.
  """
  found = _open(source, setup.mesh, setup.train_split.class_names)
  family, wanted_family = type(found.model), type(setup.model)
  if family is not wanted_family:
    raise UserError(
      f"init_from={source} is of {family.__name__}, model.name={setup.config.model.name} is not: take"
      f" --config.model.name={found.name}"
    )
  before = {path: np.asarray(array) for path, array in flatten_dict(found.params, sep="/").items()}
  model, params = _fit(source, found, setup.model, setup.config.data.image_size)
  given = flatten_dict(params, sep="/")
  expected = {path: leaf.shape for path, leaf in flatten_dict(setup.abstract.params, sep="/").items()}
  new = [path for path in expected if path.startswith("head/") and not found.same_labels]
  given = {path: array for path, array in given.items() if not path.startswith("head/") or found.same_labels}
  _check_shapes(source, setup, model, given, {path: shape for path, shape in expected.items() if path not in new})
  resized = [path for path in given if before[path].shape != given[path].shape]
  return given, _describe(source, setup, found, model, given, new, resized)


def _open(source, mesh, class_names):
  """A `_Source`; class_names are the run's, or None where the head does not matter."""
  is_weights = os.path.isfile(source) or source in weights.KNOWN
  if not is_weights and "://" not in source and not os.path.isdir(source):
    near = difflib.get_close_matches(source, weights.KNOWN, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"init_from={source} is no run, no file of weights and no name of published ones{hint}")
  return _from_weights(source, class_names) if is_weights else _from_run(source, mesh, class_names)


def _from_run(source, mesh, class_names):
  # Replicated: the one placement that every process can read, on any mesh.
  params, meta, step = checkpoints.load_weights(source, NamedSharding(mesh, P()))
  config = ml_collections.ConfigDict(meta["config"])
  model = make_model(config.model, len(meta["class_names"]))
  view = {"mean": config.data.mean, "std": config.data.std}
  same = class_names is not None and tuple(meta["class_names"]) == tuple(class_names)
  return _Source(config.model.name, model, jax.device_get(params), _options(model), view, step, same)


def _from_weights(source, class_names):
  model, params, info = weights.load(source, num_classes=class_names and len(class_names))
  view = {"mean": info.preprocessing.mean, "std": info.preprocessing.std} if info.preprocessing else {}
  same = info.head == "file" and info.class_names in (None, class_names and tuple(class_names))
  return _Source(info.model_name, model, params, info.overrides, view, None, same)


def _fit(source, found, model, image_size):
  """(module, params) of a `_Source` for this image size and, of a Swin, for the windows of `model`."""
  window = model.window_size if isinstance(model, swin.Swin) else None
  try:
    return resize.fit(found.model, jax.tree.map(np.asarray, found.params), image_size, window)
  except ValueError as error:
    raise UserError(f"init_from={source} with data.image_size={image_size}: {error}") from error


def _options(module):
  return {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name not in _FREE}


def _check_shapes(source, setup, model, given, expected):
  """UserError with the first leaves that do not fit, and the config's fields that would make them."""
  problems = [f"{path}: not in the weights" for path in expected if path not in given]
  problems += [f"{path}: not in the model" for path in given if path not in expected]
  problems += [
    f"{path}: {array.shape} in the weights, {expected[path]} in the model"
    for path, array in given.items()
    if path in expected and array.shape != expected[path]
  ]
  if not problems:
    return
  own = _options(setup.model)
  fields = [
    f"--config.model.{name}={_plain(value)}"
    for name, value in _options(model).items()
    if _plain(value) != _plain(own[name])
  ]
  advice = f"These weights would fit with {' '.join(fields)}" if fields else "Take the weights of the same model."
  what = f"init_from={source} does not fit {setup.config.model.name} ({len(problems)} arrays)"
  raise UserError(f"{what}:\n{listing(problems)}\n{advice}")


def _describe(source, setup, found, model, given, new, resized):
  step = "" if found.step is None else f", step {found.step}"
  lines = [f"starting from {source}{step}: {len(given)} arrays of parameters; new: {', '.join(new) or 'none'}"]
  if resized:
    more = f" and {len(resized) - 1} more" if resized[1:] else ""
    lines.append(f"adapted to {setup.config.data.image_size} pixels: {resized[0]}{more}")
  wanted = {f"model.{name}": value for name, value in _options(setup.model).items()}
  wanted |= {f"data.{name}": setup.config.data[name] for name in ("mean", "std")}
  resized_options = _options(model)
  theirs = {f"model.{name}": resized_options[name] for name in found.known if name in resized_options}
  theirs |= {f"data.{name}": value for name, value in found.view.items()}
  for field, value in theirs.items():
    if _plain(value) != _plain(wanted[field]):
      lines.append(f"note: {field} was {_plain(value)} for these weights, and is {_plain(wanted[field])} here")
  return "\n".join(lines)


def _plain(value):
  return tuple(value) if isinstance(value, tuple | list) else value
