"""What a file or a run notes about its own model and classes: checked before a model is built from it."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import re
from typing import Any

from flax import linen as nn

from mlpvision.preprocessing import Preprocessing
from mlpvision.weights.errors import shortened

# Attributes that are not stored in weight files.
RUN_OPTIONS = ("num_classes", "drop_path", "dropout", "remat", "dtype", "parent", "name")
_MAX_JSON = 10 << 20
_MAX_SIZE = 1 << 20  # of sizes, which must agree with the arrays
_MAX_NUMBER = 128  # of other integers: heads, directions and widths of shifts, dilation
_MAX_COUNT = 10_000  # of proposals, samples and detections
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def read(text: str) -> dict[str, Any]:
  """The metadata of `saving.save` from its JSON: family, options, head_options, preprocessing and class_names.

  A missing one is None, or {} for the options. Raises ValueError for anything else.
  """
  if len(text) > _MAX_JSON:
    raise ValueError(f"it has more than {_MAX_JSON:,} characters")
  try:
    found = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(shortened(error)) from error
  if type(found) is not dict:
    raise ValueError("it is not a JSON object")
  family, view, names = (found.get(key) for key in ("family", "preprocessing", "class_names"))
  if family is not None and type(family) is not str:
    raise ValueError("its family is not a name")
  if view is not None:
    if type(view) is not dict:
      raise ValueError("its preprocessing is not a JSON object")
    try:
      view = Preprocessing(**_with_tuples(view))
    except TypeError as error:
      raise ValueError(f"preprocessing: {shortened(error)}") from error
  options = {key: found.get(key, {}) for key in ("options", "head_options")}
  if any(type(value) is not dict for value in options.values()):
    raise ValueError("its options are not a JSON object")
  names = check_printable(class_names(names))
  return dict(family=family, preprocessing=view, class_names=names, **options)


def class_names(names: Any) -> tuple[str, ...] | None:
  """Class names as a tuple, None for None. Raises ValueError unless they are a list of text."""
  if names is None:
    return None
  if type(names) not in (list, tuple) or any(type(name) is not str or len(name) > 1000 for name in names):
    raise ValueError("its class names are not a list of text")
  return tuple(names)


def check_printable(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
  """The same names. Raises ValueError if one has control characters: no weight file needs them.

  A run may have them, from the folders of its dataset.
  """
  for name in names or ():
    if _CONTROL.search(name):
      raise ValueError(f"its class name {shortened(name, 60)!r} has control characters")
  return names


def options(module: type[nn.Module], noted: Mapping[str, Any]) -> dict[str, Any]:
  """The attributes of a module that are noted, with tuples for lists.

  Raises ValueError for an unknown attribute, or for a value that is not of the type of the attribute's default, not
  finite, or not of a possible size.
  """
  fields = (f for f in dataclasses.fields(module) if f.name not in RUN_OPTIONS)
  defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
  for name, value in noted.items():
    if name not in defaults:
      raise ValueError(f"{module.__name__} has no option {shortened(name, 60)!r}")
    if not _fits(value, defaults[name]):
      raise ValueError(f"{name}={shortened(value, 60)} is not possible")
  return _with_tuples(noted)


def options_of_head(module: type[nn.Module], noted: Mapping[str, Any]) -> dict[str, Any]:
  """`options` of a model on a backbone; ValueError also for counts, as of proposals, that no memory has room for."""
  found = options(module, noted)
  for name, value in found.items():
    if any(type(n) is int and n > _MAX_COUNT for n in (value if isinstance(value, tuple) else [value])):
      raise ValueError(f"{name}={shortened(value, 60)}, but at most {_MAX_COUNT} is possible")
  return found


def _fits(value, default):
  if isinstance(default, bool):
    return type(value) is bool
  if isinstance(default, int):
    return _is_size(value, _MAX_SIZE)
  if isinstance(default, float):
    return type(value) in (int, float) and abs(value) < 1e6 and math.isfinite(value)
  if isinstance(default, tuple):
    return (
      type(value) in (list, tuple) and len(value) <= 32 and all(_fits(n, default[0] if default else 1) for n in value)
    )
  if type(value) in (list, tuple):  # directions
    return 0 < len(value) <= _MAX_NUMBER and all(
      type(pair) in (list, tuple) and len(pair) == 2 and all(type(n) is int and abs(n) <= _MAX_NUMBER for n in pair)
      for pair in value
    )
  return type(value) is str and len(value) < 100


def _is_size(value, limit):
  return type(value) is int and 1 <= value <= limit


def disagreement(noted: Mapping[str, Any], sizes: Mapping[str, Any]) -> str | None:
  """What is wrong with noted options, given the sizes that the arrays determine; None if nothing is.

  sizes: {attribute: value, or None if it is ambiguous}. Fractions, which are rounded to sizes, are not compared.
  """
  for name, value in noted.items():
    known = sizes.get(name)
    if name in ("num_heads", "segments") and type(known) is int:
      known = None  # ViT's or ViP's usual number, which does not show in its arrays
    if type(known) in (int, tuple) and value != known and not _has_fractions(known):
      return f"{name}={value}, but its arrays are of {name}={known}"
    if known is None and type(value) is int and value > _MAX_NUMBER:
      return f"{name}={value}, but at most {_MAX_NUMBER} is possible"
  return None


def _has_fractions(value):
  return type(value) is tuple and any(type(n) is float for n in value)


def _with_tuples(fields):
  return {key: _as_tuple(value) for key, value in fields.items()}


def _as_tuple(value):
  return tuple(map(_as_tuple, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
