"""Translates between the names in published weights and ours, with one table for both directions.

A row has the name of a module in a file, ours, and the kind of its leaves; `{i}` stands for a number, `{2s+1}` for one
that is computed from it:

  ("blocks.{i}.norm1", "MixerBlock_{i}/LayerNorm_0", NORM)
  ("network.{2s+1}.proj", "merge_{s}", CONV)

Each leaf has a transform for loading and its inverse for saving, so a file that is loaded and saved does not change.
"""

from collections.abc import Callable
import dataclasses
import functools
import re
from typing import Any


@dataclasses.dataclass(frozen=True)
class Leaf:
  """theirs, ours: the end of the name in a file and in our parameters. load, save: from the file's layout and back."""

  theirs: str
  ours: str
  load: Callable[[Any], Any] = lambda array: array
  save: Callable[[Any], Any] = lambda array: array


_BIAS = Leaf("bias", "bias")
# PyTorch's layers: linear (out, in), convolution (out, in, height, width).
DENSE = (Leaf("weight", "kernel", lambda a: a.T, lambda a: a.T), _BIAS)
CONV = (Leaf("weight", "kernel", lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)), _BIAS)
CONV1X1 = (Leaf("weight", "kernel", lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]), _BIAS)
NORM = (Leaf("weight", "scale"), _BIAS)
# `layers.Mlp`, as two linear layers or 1x1 convolutions.
MLP, MLP_CONV1X1 = (
  tuple(
    dataclasses.replace(leaf, theirs=f"fc{i + 1}.{leaf.theirs}", ours=f"Dense_{i}/{leaf.ours}")
    for i in (0, 1)
    for leaf in layer
  )
  for layer in (DENSE, CONV1X1)
)
# Affine maps per channel, as vectors (DeiT's repository) or with shape [1, 1, C] (timm).
AFFINE = (Leaf("alpha", "scale"), Leaf("beta", "bias"))
AFFINE_3D = (
  Leaf("alpha", "scale", lambda a: a.reshape(-1), lambda a: a[None, None]),
  Leaf("beta", "bias", lambda a: a.reshape(-1), lambda a: a[None, None]),
)
# Flax's own names.
KERNEL = (Leaf("kernel", "kernel"), _BIAS)
SCALE = (Leaf("scale", "scale"), _BIAS)


@dataclasses.dataclass(frozen=True)
class Table:
  """The names of one family in one source of weights.

  Attributes:
    name: of the source, e.g. "timm".
    rows: (module in a file, our module, leaves); the first row that matches a name applies. Empty: our own names.
    separator: between the parts of a name in a file.
    ignore: regex of names to skip, such as buffers.
    options: attributes of our module that the source implies but shapes do not determine.
    read_only: an old layout, never written.
  """

  name: str
  rows: tuple = ()
  separator: str = "."
  ignore: str | None = None
  options: dict = dataclasses.field(default_factory=dict)
  read_only: bool = False

  def skips(self, name: str) -> bool:
    return self.ignore is not None and re.search(self.ignore, name) is not None

  def ours(self, name: str) -> tuple[str, Callable[[Any], Any]] | None:
    """(our path, transform) for a name in a file, or None."""
    for theirs, ours, leaf in self._leaves:
      path = _translate(name, theirs, ours)
      if path is not None:
        return path, leaf.load
    return None

  def theirs(self, path: str) -> tuple[str, Callable[[Any], Any]] | None:
    """(name in a file, transform) for one of our paths, or None."""
    for theirs, ours, leaf in self._leaves:
      name = _translate(path, ours, theirs)
      if name is not None:
        return name, leaf.save
    return None

  @functools.cached_property
  def _leaves(self):
    """[(template of a name in a file, template of our path, leaf), ...]."""
    return [
      (_join(self.separator, theirs, leaf.theirs), _join("/", ours, leaf.ours), leaf)
      for theirs, ours, leaves in self.rows
      for leaf in leaves
    ]


def within(table: Table, prefix: str, *rows: tuple) -> Table:
  """The table of a model that contains the model of `table` as `prefix`, in a file and here; rows: its other ones."""
  of_file, of_model = (functools.partial(_inside, separator, prefix) for separator in (table.separator, "/"))
  inner = ((of_file(theirs), of_model(ours), leaves) for theirs, ours, leaves in table.rows)
  return dataclasses.replace(table, rows=(*rows, *inner))


def _inside(separator, prefix, module):
  return f"{prefix}{separator}{module}" if module else prefix  # "" for leaves without a module


def _join(separator, module, leaf):
  return f"{module}{separator}{leaf}" if module else leaf


def _translate(name, source, target):
  """The name rewritten from template `source` to `target`, or None; {2i+1} in a template stands for 2 i + 1."""
  found = numbers(name, source)
  if found is None:
    return None
  return re.sub(_PLACEHOLDER, lambda m: str(int(m[1] or 1) * found[m[2]] + int(m[3] or 0)), target)


def numbers(name: str, template: str) -> dict[str, int] | None:
  """{"s": 2, "i": 0} for "stage_2_block_0" and the template "stage_{s}_block_{i}"; None if it does not match."""
  match = regex(template).fullmatch(name)
  if match is None:
    return None
  found = {}
  for letter, (factor, offset) in _terms(template).items():
    found[letter], rest = divmod(int(match[letter]) - offset, factor)
    if rest or found[letter] < 0:
      return None
  return found


_PLACEHOLDER = r"\{(\d?)([a-z])(?:\+(\d))?\}"


@functools.cache
def regex(template: str) -> re.Pattern:
  """The regex of a template, with a group named by its letter for each number."""
  pieces = re.split(_PLACEHOLDER, template)  # text, factor, letter, offset, text, factor, letter, offset, ..., text
  pattern = re.escape(pieces[0])
  for letter, text in zip(pieces[2::4], pieces[4::4], strict=True):
    pattern += rf"(?P<{letter}>0|[1-9]\d*)" + re.escape(text)
  return re.compile(pattern)


@functools.cache
def _terms(template):
  """{letter: (factor, offset)}."""
  return {letter: (int(factor or 1), int(offset or 0)) for factor, letter, offset in re.findall(_PLACEHOLDER, template)}


def squeeze(array: Any) -> Any:
  """Removes axes of length 1; a result without axes becomes a vector of length 1."""
  return array.reshape(tuple(n for n in array.shape if n != 1) or (1,))
