"""Finds the family and the naming table of a file, and the table for writing a file."""

from collections.abc import Collection, Iterable, Mapping
import dataclasses
import functools
import re

from flax.traverse_util import flatten_dict
import jax

from mlpvision import models
from mlpvision.models.family import Family
from mlpvision.models.naming import Leaf, Table, numbers
from mlpvision.weights.shapes import shortest

# From data-parallel and compiled PyTorch modules, from modules around the model, and from Flax training states.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "opt/target/", "params/")
_MOST_PREFIXES = 6  # in one name
_FIRST = re.compile(r"(?:[^./]*[./])?")
_NUMBERED = re.compile(r"(?<![^/])([A-Z]\w*)_(\d+)(?![^/])")  # a part of a path, such as LayerNorm_0


def strip_prefixes(names: Mapping[str, str]) -> dict[str, str]:
  """{name without prefixes: value}. If some names have a prefix, names without it are not weights and are left out."""
  short = dict(names)
  for _ in range(_MOST_PREFIXES):  # because they can be nested in any order
    for prefix in PREFIXES:
      inside = {key.removeprefix(prefix): name for key, name in short.items() if key.startswith(prefix)}
      short = inside or short
  return short


def strip_common(names: Mapping[str, str]) -> dict[str, str] | None:
  """{name without its first part: value}, if all names have the same first part; otherwise None."""
  first = {_FIRST.match(name)[0] for name in names}
  return (
    {name.removeprefix(*first): value for name, value in names.items()} if len(first) == 1 and "" not in first else None
  )


def renumber_pre_linen(names: Iterable[str]) -> dict[str, str]:
  """{name: name with the numbers of Flax linen}, for names joined by "/".

  Before linen, Flax numbered all unnamed submodules of a module in one sequence (LayerNorm_0, Dense_1); linen numbers
  each class from 0. All blocks are renumbered by the same offset, so that a missing block can still be detected.
  """
  counted = {}  # {(path of the parent, class): numbers}
  for name in names:
    for match in _NUMBERED.finditer(name):
      counted.setdefault((name[: match.start()], match[1]), set()).add(int(match[2]))
  if all("Block" in kind or max(found) == len(found) - 1 for (_, kind), found in counted.items()):
    return {name: name for name in names}

  def in_linen(match):
    found, number = sorted(counted[match.string[: match.start()], match[1]]), int(match[2])
    return f"{match[1]}_{number - found[0] if 'Block' in match[1] else found.index(number)}"

  return {name: _NUMBERED.sub(in_linen, name) for name in names}


def identify(names: Collection[str], family_name: str | None = None) -> tuple[Family | None, Table | None]:
  """(family, table) that match the most names; (None, None) if none matches half of them.

  family_name: class name of a module; if a family has this module, only its tables are considered.
  """
  named = [family for family in models.FAMILIES if family.module.__name__ == family_name]
  best, found = len(names) / 2, (None, None)
  for family in named or models.FAMILIES:
    for table in _tables(family):
      known = sum(table.skips(name) or table.ours(name) is not None for name in names)
      if known > best:
        best, found = known, (family, table)
  return found


def table_for(family: Family, file_format: str) -> Table | None:
  """The table for writing a family's parameters in a format, or None."""
  writable = [table for table in _tables(family) if not table.read_only]
  return next((table for table in writable if (table.name == "npz") == (file_format == "npz")), None)


@functools.cache
def _tables(family):
  return [
    table if table.rows else dataclasses.replace(table, rows=_own(family, table.separator)) for table in family.tables
  ]


def _own(family, separator):
  """Rows for our own names, from the parameters of the family's first variant with as few blocks as possible."""
  module = models.create(next(iter(family.variants)))
  images = jax.ShapeDtypeStruct((1, module.size_divisor, module.size_divisor, 3), "float32")
  params = jax.eval_shape(shortest(module).init, jax.random.key(0), images)["params"]
  rows = {}
  for name, *path in flatten_dict(params):
    template = next((one for one in (family.block, "merge_{s}") if numbers(name, one) is not None), name)
    *parents, leaf = [template, *path]
    rows[separator.join(parents), "/".join(parents), (Leaf(leaf, leaf),)] = None
  return tuple(rows)
