"""The classes of ImageNet and of its evaluation sets: WordNet ids in order, and their words."""

import functools
import pathlib

_TABLE = pathlib.Path(__file__).parent / "wordnet.tsv"  # its header gives the source of each column

# tfds labels these with 1,000 classes, but they contain 200, over which their authors' eval.py computes the score.
SUBSETS = {"imagenet_a": "a", "imagenet_r": "r"}

# {width of a published head: its classes}
_HEADS = {1000: "1k", 21843: "g"}


def classes(which: str) -> tuple[str, ...]:
  """The WordNet ids of "1k" (ImageNet-1K), "a", "r" (ImageNet-A and -R) or "g" (Google's ImageNet-21K), in order."""
  return tuple(wnid for wnid, sets, _ in _rows() if which in sets)


def head_classes(num_classes: int) -> tuple[str, ...] | None:
  """The WordNet ids of a published ImageNet head of this width, or None."""
  return classes(_HEADS[num_classes]) if num_classes in _HEADS else None


def words(wnid: str) -> str | None:
  """WordNet's words for an id, such as "goldfish, Carassius auratus"; None for an unknown id."""
  return _words().get(wnid)


@functools.cache
def _rows():
  lines = _TABLE.read_text("utf-8").splitlines()
  rows = (line.split("\t") for line in lines if not line.startswith("#"))
  return [(wnid, frozenset(sets.split()), text) for wnid, sets, text in rows]


@functools.cache
def _words():
  return {wnid: text for wnid, _, text in _rows()}
