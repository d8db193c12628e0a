"""One table of names for both directions: a file's names into ours, and ours into a file's.

A row of a table names a module on either side, `{i}` standing for a number, and the kind of its leaves:

  ("blocks.{i}.mlp_tokens.fc1", "MixerBlock_{i}/token_mixing/Dense_0", DENSE)

The same row reads and writes, and each leaf's transform is listed with its inverse, so what is read from a file
and written again is the same file.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import re
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Leaf:
  """theirs, ours: the last part of the name on either side. load, save: from their layout to ours and back."""

  theirs: str
  ours: str
  load: Callable[[np.ndarray], np.ndarray] = lambda array: array
  save: Callable[[np.ndarray], np.ndarray] = lambda array: array


def _transpose(array):
  return array.T


def _conv_in(array):
  return array.transpose(2, 3, 1, 0)


def _conv_out(array):
  return array.transpose(3, 2, 0, 1)


def _flat(array):
  return array.reshape(-1)


_BIAS = Leaf("bias", "bias")
# PyTorch's layers: linear (out, in), convolution (out, in, height, width).
DENSE = (Leaf("weight", "kernel", _transpose, _transpose), _BIAS)
CONV = (Leaf("weight", "kernel", _conv_in, _conv_out), _BIAS)
CONV1X1 = (Leaf("weight", "kernel", lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]), _BIAS)
NORM = (Leaf("weight", "scale"), _BIAS)
# Affine maps per channel, as vectors (DeiT's repository) or with two axes of length 1 before them (timm).
AFFINE = (Leaf("alpha", "scale"), Leaf("beta", "bias"))
AFFINE_3D = (
  Leaf("alpha", "scale", _flat, lambda a: a[None, None]),
  Leaf("beta", "bias", _flat, lambda a: a[None, None]),
)
# Flax's own names.
KERNEL = (Leaf("kernel", "kernel"), _BIAS)
SCALE = (Leaf("scale", "scale"), _BIAS)


@dataclasses.dataclass(frozen=True)
class Table:
  """The names that one source of weights uses for one family.

  Attributes:
    name: of the source, e.g. "timm".
    rows: (their module, our module, leaves); the first row that fits a name decides.
    separator: between the parts of their names.
    marker: a name that must be there for the table to apply, where another table would fit as well.
    ignore: a pattern of names without weights (buffers), which are skipped.
    options: attributes of our module that this source implies and shapes do not tell.
    read_only: an old layout that is not written any more.
  """

  name: str
  rows: tuple
  separator: str = "."
  marker: str | None = None
  ignore: str | None = None
  options: dict = dataclasses.field(default_factory=dict)
  read_only: bool = False

  def skips(self, name: str) -> bool:
    return self.ignore is not None and re.search(self.ignore, name) is not None

  def ours(self, name: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]] | None:
    """(our path, transform) of a name in a file, or None."""
    for theirs, ours, leaf in self._leaves:
      path = _translate(name, theirs, ours)
      if path is not None:
        return path, leaf.load
    return None

  def theirs(self, path: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]] | None:
    """(name in a file, transform) of one of our paths, or None."""
    for theirs, ours, leaf in self._leaves:
      name = _translate(path, ours, theirs)
      if name is not None:
        return name, leaf.save
    return None

  @functools.cached_property
  def _leaves(self):
    return [
      (_join(theirs, self.separator, leaf.theirs), _join(ours, "/", leaf.ours), leaf)
      for theirs, ours, leaves in self.rows
      for leaf in leaves
    ]


def _join(module, separator, leaf):
  return separator.join(part for part in (module, leaf) if part)


def _translate(name, source, target):
  """The name in the words of `target` if it fits `source`; {i+1} in either stands for one more than the number."""
  match = _regex(source).fullmatch(name)
  if match is None:
    return None
  numbers = {key: int(value) - _offsets(source)[key] for key, value in match.groupdict().items()}
  if any(number < 0 for number in numbers.values()):
    return None
  return re.sub(_PLACEHOLDER, lambda m: str(numbers[m[1]] + int(m[2] or 0)), target)


_PLACEHOLDER = r"\{(\w)(?:\+(\d))?\}"


@functools.cache
def _regex(template):
  pieces = re.split(_PLACEHOLDER, template)  # text, letter, offset, text, letter, offset, ..., text
  pattern = re.escape(pieces[0])
  for letter, text in zip(pieces[1::3], pieces[3::3], strict=True):
    pattern += rf"(?P<{letter}>0|[1-9]\d*)" + re.escape(text)
  return re.compile(pattern)


@functools.cache
def _offsets(template):
  return {letter: int(offset or 0) for letter, offset in re.findall(_PLACEHOLDER, template)}


def renumber_pre_linen(names: Iterable[str]) -> dict[str, str]:
  """{name: name in Flax linen's numbering}, for names joined by "/".

  Before linen, Flax numbered the unnamed submodules of a module in one sequence, whatever their classes
  (LayerNorm_0, Dense_1); linen counts each class from 0. Blocks only move together, so that a block missing from
  the file stays missing.
  """
  numbers = {}
  for name in names:
    parts = name.split("/")
    for depth, part in enumerate(parts):
      match = re.fullmatch(r"([A-Z]\w*)_(\d+)", part)
      if match:
        numbers.setdefault(("/".join(parts[:depth]), match[1]), set()).add(int(match[2]))
  if all("Block" in kind or max(known) == len(known) - 1 for (_, kind), known in numbers.items()):
    return {name: name for name in names}  # linen's already

  def new(parent, part):
    match = re.fullmatch(r"([A-Z]\w*)_(\d+)", part)
    if not match:
      return part
    known = sorted(numbers[parent, match[1]])
    number = int(match[2])
    return f"{match[1]}_{number - known[0] if 'Block' in match[1] else known.index(number)}"

  renamed = {}
  for name in names:
    parts = name.split("/")
    renamed[name] = "/".join(new("/".join(parts[:depth]), part) for depth, part in enumerate(parts))
  return renamed


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """A nested dict as {"a/b/c": leaf}."""
  flat = {}
  for key, value in tree.items():
    path = f"{prefix}/{key}" if prefix else str(key)
    flat.update(flatten(value, path) if hasattr(value, "items") else {path: value})
  return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """{"a/b/c": leaf} as a nested dict."""
  tree = {}
  for path, value in flat.items():
    *parents, last = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = value
  return tree


def squeeze(array: np.ndarray) -> np.ndarray:
  """Without axes of length 1; a vector stays one even when it has a single number."""
  shape = tuple(n for n in array.shape if n != 1)
  return np.reshape(array, shape or (1,))
