"""Weight files of segmenters, in mmsegmentation's names: a backbone, a decode head and an auxiliary head."""

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
from mlpvision.models.heads import upernet
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights import noted, reading, shapes as shapes_lib, tables
from mlpvision.weights.errors import WeightsError, listing
from mlpvision.weights.files import WeightFile

# Of mmsegmentation's configs.
PREPROCESSING = Preprocessing(
  mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear", image_size=512, scale=(2048, 512)
)
_PART = re.compile(r"(?:.*\.)?((?:backbone|pyramid|decode_head|auxiliary_head)\..*)")
_OUTPUT_NORM = re.compile(r"backbone\.norm\d+\.")
_OF_CLASSIFIER = ("backbone/norm/", "backbone/head/")
_CLASSIFIERS = ("decode_head/conv_seg", "auxiliary_head/conv_seg")


@dataclasses.dataclass(frozen=True)
class Dense:
  """What `load` found; see `loading.Loaded` and `loading.Info`."""

  module: nn.Module
  params: dict
  stats: dict
  model_name: str
  overrides: dict
  head: str


def is_dense(names: Iterable[str]) -> bool:
  """Whether arrays of these names are of a segmenter."""
  return any((match := _PART.fullmatch(name)) and match[1].startswith("decode_head.") for name in names)


def table(of_backbone: naming.Table) -> naming.Table:
  """The table for writing a segmenter, from the one for writing its backbone."""
  return naming.within(of_backbone, "backbone", *upernet.TABLE.rows)


def load(file: WeightFile, saved: Mapping[str, Any], *, seed: int = 0, **overrides: Any) -> Dense:
  """The segmenter in a file. The names and shapes in it determine the backbone and all sizes.

  saved: what the file notes, see `noted.read`.
  overrides: attributes of the head and the backbone, and num_classes: another number than the file's creates new
    classifiers.

  Raises:
    WeightsError: arrays are missing, unknown or of other shapes, or num_classes is None.
    ValueError: unknown attribute.
  """
  names = {match[1]: name for name in file.names if (match := _PART.fullmatch(name))}
  of_backbone = {
    short.removeprefix("backbone."): name
    for short, name in names.items()
    if short.startswith("backbone.") and not _OUTPUT_NORM.match(short)
  }
  rest = {short: name for short, name in names.items() if short.removeprefix("backbone.") not in of_backbone}
  family, table = tables.identify(list(of_backbone), saved["family"])
  if family is None:
    raise WeightsError(file.path, "contains a segmenter on an unknown backbone", listing(list(of_backbone), 5))
  arrays = reading.translated(file, of_backbone, table, f"{family.module.__name__} in {table.name} naming")
  sizes = _arguments(file, family, arrays)
  arrays = {f"backbone/{path}": array for path, array in arrays.items()}
  arrays |= reading.translated(file, rest, upernet.TABLE, "UperNet in mmseg naming")
  options = _options(file, family, saved, {**table.options, **sizes}) | overrides
  classes, head = _classes(file, arrays), "file"
  wanted = options.pop("num_classes", classes)
  if not wanted:
    raise WeightsError(file.path, "is a segmenter, which has no features without its classes", "Omit num_classes.")
  for name, path in zip(("channels", "auxiliary_channels"), _CLASSIFIERS, strict=True):
    if f"{path}/kernel" in arrays:
      options[name] = arrays[f"{path}/kernel"].shape[0]
  known = layers.attributes(family.module)
  sizes_only = {name: value for name, value in options.items() if name in known}
  backbone = min(family.variants, key=lambda name: len(_difference(name, sizes_only)))
  changed = {"backbone": backbone, **_difference(backbone, sizes_only)}
  changed |= {name: value for name, value in options.items() if name not in known}
  module = models.create("upernet", num_classes=classes, **changed)
  arrays = _checked(file, module, arrays)
  if wanted != classes:
    module, head = module.clone(num_classes=wanted), "new"
    arrays |= _new_classifiers(arrays, wanted, seed)
  stats = {path: arrays.pop(path) for path in list(arrays) if path.endswith(("/bn/mean", "/bn/var"))}
  stats = {"batch_stats": unflatten_dict(stats, sep="/")}
  return Dense(module, unflatten_dict(arrays, sep="/"), stats, "upernet", changed, head)


def _arguments(file, family, arrays):
  try:
    return family.arguments({path: array.shape for path, array in arrays.items()})
  except (LookupError, ValueError, ZeroDivisionError) as error:
    problem = f"lacks arrays that determine the sizes of {family.module.__name__}, or they have other shapes: {error}"
    raise WeightsError(file.path, problem) from error


def _options(file, family, saved, sizes):
  try:
    options = noted.options(family.module, saved["options"])
  except (ValueError, RecursionError) as error:
    raise WeightsError(file.path, f"its mlpvision metadata is invalid ({error})") from error
  if wrong := noted.disagreement(options, sizes):
    raise WeightsError(file.path, f"its mlpvision metadata says {wrong}")
  return {**sizes, **options}


def _classes(file, arrays):
  kernel = arrays.get("decode_head/conv_seg/kernel")
  if kernel is None or kernel.ndim != 2:
    raise WeightsError(file.path, "has no decode_head.conv_seg, the classifier of a segmenter")
  return kernel.shape[1]


def _difference(name, options):
  plain = models.create(name, **_family(name).dense)
  return {key: value for key, value in options.items() if getattr(plain, key) != value}


def _family(name):
  return next(family for family in models.FAMILIES if name in family.variants)


def _checked(file, module, arrays):
  """The arrays of the module, without a classifier's last norm and head if there are any."""
  shapes = {path: array.shape for path, array in arrays.items()}
  try:
    expected = shapes_lib.expected_dense(module, shapes)
  except ValueError as error:
    raise WeightsError(file.path, f"does not match UperNet: {str(error)[:1000]}") from error
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
    raise WeightsError(file.path, f"does not match UperNet on {type(module.backbone).__name__}", listing(wrong))
  return arrays


def _new_classifiers(arrays, num_classes, seed):
  """Initialized as `upernet` does."""
  found = {}
  for key, path in zip(jax.random.split(jax.random.key(seed)), _CLASSIFIERS, strict=True):
    shape = (len(arrays[f"{path}/kernel"]), num_classes)
    found[f"{path}/kernel"] = np.asarray(nn.initializers.normal(0.01)(key, shape))
    found[f"{path}/bias"] = np.zeros(num_classes, np.float32)
  return found
