"""What archives are cut into: pieces, which any process can check, and what checking them yields.

A dataset's builder has a source, which yields its pieces in the order of the archive. A piece is a callable that can be
pickled; calling it reads and checks its images and yields an `Example` or a `Note` for each.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol


class Example(NamedTuple):
  """A checked example: its split, its key, which is unique in the split, and its features as tfds encodes them."""

  split: str
  key: str | int
  features: dict[str, Any]


class Note(NamedTuple):
  """A line of a report.

  Attributes:
    kind: "skipped" or "re-encoded".
    split: None if it concerns every split.
    name: of the image or class.
    reason: in one line.
  """

  kind: str
  split: str | None
  name: str
  reason: str


Piece = Callable[[], Iterator[Example | Note]]


class Source(Protocol):
  """The archives of a dataset. It can be pickled.

  Attributes:
    identity: str; equal if the pieces are equal.
    metadata: what the builder needs to know of the whole dataset, for JSON; complete once all pieces were yielded.
  """

  identity: str
  metadata: dict[str, Any]

  def __iter__(self) -> Iterator[Piece]: ...
