"""The classes of ImageNet and of its evaluation sets: WordNet ids in order, and their words."""

import functools
import pathlib

_TABLE = pathlib.Path(__file__).parent / "wordnet.tsv"  # its header gives the source of each column

# tfds labels these with 1,000 classes, but they contain 200, over which their authors' eval.py computes the score.
SUBSETS = {"imagenet_a": "a", "imagenet_r": "r"}


def classes(which: str) -> tuple[str, ...]:
  """The WordNet ids of "1k" (ImageNet-1K), "a", "r" (ImageNet-A and -R) or "g" (Google's ImageNet-21K), in order."""
  return tuple(wnid for wnid, (sets, _) in _table().items() if which in sets)


def head_classes(num_classes: int) -> tuple[str, ...] | None:
  """The WordNet ids of a published ImageNet head of this width, or None."""
  which = {1000: "1k", 21843: "g"}.get(num_classes)
  return classes(which) if which else None


def words(wnid: str) -> str | None:
  """WordNet's words for an id, such as "goldfish, Carassius auratus"; None for an unknown id."""
  return _table()[wnid][1] if wnid in _table() else None


@functools.cache
def _table():
  lines = _TABLE.read_text("utf-8").splitlines()
  rows = (line.split("\t") for line in lines if not line.startswith("#"))
  return {wnid: (frozenset(sets.split()), text) for wnid, sets, text in rows}
