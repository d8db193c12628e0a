"""Weight files of models on a backbone: segmenters and detectors, with the names of mmsegmentation and mmdetection."""

from collections.abc import Iterable, Mapping
import dataclasses
import re
from typing import Any

from flax import linen as nn
from flax.traverse_util import unflatten_dict
import jax
import numpy as np

from mlpvision import models
from mlpvision.models import layers, naming
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights import detectors, noted, reading, segmenters, shapes as shapes_lib, tables
from mlpvision.weights.errors import WeightsError, listing
from mlpvision.weights.files import WeightFile

KINDS = (segmenters.KIND, detectors.KIND)

_OUTPUT_NORM = re.compile(r"backbone\.norm\d+\.")
_OF_CLASSIFIER = ("backbone/norm/", "backbone/head/")


@dataclasses.dataclass(frozen=True)
class Dense:
  """What `load` found; see `loading.Loaded` and `loading.Info`."""

  module: nn.Module
  params: dict
  stats: dict
  naming: str
  model_name: str
  overrides: dict
  head: str
  preprocessing: Preprocessing


def is_dense(names: Iterable[str]) -> bool:
  """Whether arrays of these names are of a segmenter or a detector."""
  return bool(_kinds(names))


def table(of_backbone: naming.Table, module: nn.Module) -> naming.Table:
  """The table for writing a module on a backbone, from the one for writing its backbone."""
  kind = next(kind for kind in KINDS if isinstance(module, kind.module))
  return naming.within(of_backbone, "backbone", *kind.table.rows)


def load(
  file: WeightFile, saved: Mapping[str, Any], model_name: str | None = None, *, seed: int = 0, **overrides: Any
) -> Dense:
  """The segmenter or detector in a file. The names and shapes in it determine the backbone and all sizes.

  saved: what the file notes, see `noted.read`.
  model_name: a key of `models.HEADS`, which must be that of the file.
  overrides: attributes of the head and the backbone, and num_classes: another number than the file's creates new
    classifiers.

  Raises:
    WeightsError: arrays are missing, unknown or of other shapes, or num_classes is None.
    ValueError: unknown attribute.
  """
  kind = _kind(file)
  names = _parts(file, kind)
  of_backbone = {
    short.removeprefix("backbone."): name
    for short, name in names.items()
    if short.startswith("backbone.") and not _OUTPUT_NORM.match(short)
  }
  rest = {short: name for short, name in names.items() if short.removeprefix("backbone.") not in of_backbone}
  family, table = tables.identify(list(of_backbone), saved["family"])
  if family is None:
    raise WeightsError(file.path, f"contains a {kind.noun} on an unknown backbone", listing(list(of_backbone), 5))
  arrays = reading.translated(file, of_backbone, table, f"{family.module.__name__} in {table.name} naming")
  sizes = _arguments(file, family.module, family.arguments, arrays)
  arrays = {f"backbone/{path}": array for path, array in arrays.items()}
  of_head = reading.translated(file, rest, kind.table, f"a {kind.noun} in {kind.table.name} naming")
  found = _arguments(file, kind.module, kind.find, of_head)
  if model_name not in (None, found.model_name):
    raise WeightsError(file.path, f"contains weights of {found.model_name}, not of {model_name}")
  _check_noted(file, kind, saved, found.num_classes)
  options = _options(file, family.module, saved["options"], {**table.options, **sizes})
  options |= _options_of_head(file, models.HEADS[found.model_name], saved["head_options"], found.sizes)
  options |= overrides
  wanted = options.pop("num_classes", found.num_classes)
  if not wanted:
    raise WeightsError(file.path, f"is a {kind.noun}, which has no features without its classes", "Omit num_classes.")
  changed = _changed(family, options)
  module = models.create(found.model_name, num_classes=found.num_classes, **changed)
  arrays, head = _checked(file, module, arrays | of_head), "file"
  if wanted != found.num_classes:
    module, head = module.clone(num_classes=wanted), "new"
    arrays |= _new_classifiers(kind, arrays, wanted, seed)
  stats = {path: arrays.pop(path) for path in list(arrays) if path.endswith(("/bn/mean", "/bn/var"))}
  stats = {"batch_stats": unflatten_dict(stats, sep="/")} if stats else {}
  view = saved["preprocessing"] or kind.preprocessing
  return Dense(
    module, unflatten_dict(arrays, sep="/"), stats, kind.table.name, found.model_name, changed, head, view
  )  # fmt: skip


def _kinds(names):
  marks = {kind.mark: kind for kind in KINDS}
  mark = re.compile(rf"(?:.*\.)?({'|'.join(map(re.escape, marks))}).*")
  found = {match[1] for name in names if (match := mark.fullmatch(name))}
  return [kind for kind in KINDS if kind.mark in found]


def _kind(file):
  kind, *others = _kinds(file.names)
  if others:
    raise WeightsError(file.path, f"has arrays of a {kind.noun} and of a {others[0].noun}", "A file has one model.")
  return kind


def _parts(file, kind):
  """{name that begins with "backbone." or another of the kind's parts: name in the file}."""
  part = re.compile(rf"(?:.*\.)?((?:backbone|{'|'.join(kind.parts)})\..*)")
  names = {}
  for name in file.names:
    if (match := part.fullmatch(name)) and (other := names.setdefault(match[1], name)) != name:
      raise WeightsError(file.path, f"has {other} and {name}, which are the same parameter of the model")
  reading.warn_of_rest(file, names.values())
  return names


def _arguments(file, module, function, arrays):
  try:
    return function({path: array.shape for path, array in arrays.items()})
  except (LookupError, ValueError, ZeroDivisionError) as error:
    problem = f"lacks arrays that determine the sizes of {module.__name__}, or they have other shapes: {error}"
    raise WeightsError(file.path, problem) from error


def _options(file, module, options, sizes):
  options = _noted(file, noted.options, module, options)
  if wrong := noted.disagreement(options, sizes):
    raise WeightsError(file.path, f"its mlpvision metadata says {wrong}")
  return {**sizes, **options}


def _noted(file, function, module, options):
  try:
    return function(module, options)
  except (ValueError, RecursionError) as error:
    raise WeightsError(file.path, f"its mlpvision metadata is invalid ({error})") from error


def _options_of_head(file, module, options, sizes):
  options = {name: value for name, value in options.items() if name not in sizes}
  return _noted(file, noted.options_of_head, module, options) | sizes


def _changed(family, options):
  """{"backbone": the variant that is nearest, and the options that differ from it or are the head's}."""
  known = layers.attributes(family.module)
  of_backbone = {name: value for name, value in options.items() if name in known}
  differences = {}
  for name in family.variants:
    plain = models.create(name, **family.dense)
    differences[name] = {key: value for key, value in of_backbone.items() if getattr(plain, key) != value}
  name = min(differences, key=lambda name: len(differences[name]))
  of_head = {key: value for key, value in options.items() if key not in known}
  return {"backbone": name, **differences[name], **of_head}


def _check_noted(file, kind, saved, num_classes):
  names, view = saved["class_names"], saved["preprocessing"]
  if names is not None and len(names) != num_classes:
    raise WeightsError(file.path, f"its mlpvision metadata has {len(names)} class names for a head of {num_classes}")
  if view is not None and view.scale is None:
    raise WeightsError(file.path, f"its mlpvision metadata has a preprocessing without the scale of a {kind.noun}")


def _checked(file, module, arrays):
  """The arrays of the module, without a classifier's last norm and head if there are any."""
  shapes, name = {path: array.shape for path, array in arrays.items()}, type(module).__name__
  try:
    expected = shapes_lib.expected_dense(module, shapes)
  except ValueError as error:
    raise WeightsError(file.path, f"does not match {name}: {str(error)[:1000]}") from error
  expected = {path.removeprefix("batch_stats/"): shape for path, shape in expected.items()}
  arrays = {path: a for path, a in arrays.items() if path in expected or not path.startswith(_OF_CLASSIFIER)}
  shapes = {path: shapes[path] for path in arrays}
  wrong = [f"{path}: missing" for path in expected if path not in shapes]
  wrong += [f"{path}: unexpected" for path in shapes if path not in expected]
  wrong += [
    f"{path}: {shape} in the file, {expected[path]} in the model"
    for path, shape in shapes.items()
    if expected.get(path, shape) != shape
  ]
  if wrong:
    raise WeightsError(file.path, f"does not match {name} on {type(module.backbone).__name__}", listing(wrong))
  return arrays


def _new_classifiers(kind, arrays, num_classes, seed):
  """{path: array} of the layers for another number of classes, initialized as the module does."""
  found, modules = {}, [path.removesuffix("/kernel") for path in arrays if path.endswith("/kernel")]
  layers_of_classes = [(path, one) for one in kind.classifiers for path in modules if re.fullmatch(one.path, path)]
  keys = jax.random.split(jax.random.key(seed), len(layers_of_classes))
  for key, (path, layer) in zip(keys, layers_of_classes, strict=True):
    number = layer.outputs(num_classes)
    found[f"{path}/kernel"] = np.asarray(layer.init(key, (len(arrays[f"{path}/kernel"]), number)))
    found[f"{path}/bias"] = np.zeros(number, np.float32)
  return found
