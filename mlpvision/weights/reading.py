"""Reads the arrays of a file as parameters, by the names of the table that matches."""

from collections.abc import Iterable, Mapping

from absl import logging
import numpy as np

from mlpvision import models
from mlpvision.models.family import Family
from mlpvision.models.naming import Table
from mlpvision.weights import tables
from mlpvision.weights.errors import WeightsError, listing
from mlpvision.weights.files import WeightFile


def _named(file, family_name):
  """({name in a table: name in the file}, family, table), without prefixes; family and table are None if unknown."""
  names = {name: name for name in file.names}
  for _ in range(4):  # prefixes that we do not know
    names, named = tables.strip_prefixes(names), {}
    renumbered = tables.renumber_pre_linen(names)
    for short, name in names.items():
      if (other := named.setdefault(renumbered[short], name)) != name:
        raise WeightsError(file.path, f"has {other} and {name}, which are the same parameter of the model")
    family, table = tables.identify(list(named), family_name)
    shorter = tables.strip_common(names)
    if family is not None or shorter is None:
      break
    names = shorter
  return named, family, table


def read(file: WeightFile, family_name: str | None) -> tuple[Family, Table, dict[str, np.ndarray]]:
  """(family, table, {our path: float32 array}) of a file; family_name: from its metadata, or None."""
  names, family, table = _named(file, family_name)
  if family is None:
    advice = f"Families: {', '.join(one.module.__name__ for one in models.FAMILIES)}. The first names in the file:\n"
    raise WeightsError(file.path, "contains weights of no known model", advice + listing(file.names, 5))
  warn_of_rest(file, names.values())
  return family, table, translated(file, names, table, f"{family.module.__name__} in {table.name} naming")


def warn_of_rest(file: WeightFile, used: Iterable[str]) -> None:
  """Logs the arrays of a file, if any, whose names are not used."""
  used = set(used)
  left = [name for name in file.names if name not in used and not name.startswith("opt/")]
  if left:
    logging.warning("%s: %d arrays are not of the model and are left out:\n%s", file.path, len(left), listing(left))


def translated(file: WeightFile, names: Mapping[str, str], table: Table, what: str) -> dict[str, np.ndarray]:
  """{our path: float32 array} of a file's arrays; WeightsError if the table does not know one.

  names: {name in the table: name in the file}; what: the model and its naming, for messages.
  """
  chosen, strangers = {}, []
  for short, name in names.items():
    if table.skips(short):
      continue
    translated = table.ours(short)
    if translated is None:
      strangers.append(name)
      continue
    path, transform = translated
    if path in chosen:
      raise WeightsError(file.path, f"has {chosen[path][0]} and {name}, which are the same parameter of the model")
    chosen[path] = name, transform
  if strangers:
    problem = f"looks like {what}, but has unknown arrays ({len(strangers)})"
    raise WeightsError(file.path, problem, listing(strangers))
  file.check_memory(name for name, _ in chosen.values())
  params = {}
  for path, (name, transform) in chosen.items():
    try:
      params[path] = file.read(name, transform)
    except (ValueError, IndexError) as error:
      if isinstance(error, WeightsError):
        raise
      raise WeightsError(file.path, f"{name} has shape {file.shape(name)}, which is impossible for {path}") from error
  return params
