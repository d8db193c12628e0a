"""What archives are cut into: pieces, which any process can check, and what checking them yields.

A dataset's builder has a source, which yields its pieces in the order of the archive. A piece is a callable that can be
sent to another process; calling it reads and checks its images and yields an `Example` or a `Note` for each.
"""

from collections.abc import Callable, Iterator
import json
import math
from typing import Any, NamedTuple, Protocol

import numpy as np


class Example(NamedTuple):
  """A checked example: its split, its key, which is unique in the split, and its features as tfds encodes them."""

  split: str
  key: str | int
  features: dict[str, Any]

  def pack(self) -> bytes:
    """Key and features: bytes and arrays as they are, the others as JSON."""
    kinds, values = {}, []
    for name, value in self.features.items():
      if isinstance(value, bytes):
        kinds[name] = len(value)
        values.append(value)
      elif isinstance(value, np.ndarray):
        kinds[name] = [value.dtype.str, value.shape]
        values.append(value.tobytes())
      else:
        kinds[name] = {"value": value}
    head = json.dumps([self.key, kinds]).encode()
    return b"".join([len(head).to_bytes(8, "big"), head, *values])


def unpack(data: bytes | memoryview) -> tuple[str | int, dict[str, Any]]:
  """(key, features) of `Example.pack`."""
  at = 8 + int.from_bytes(data[:8], "big")
  key, kinds = json.loads(bytes(data[8:at]))
  features = {}
  for name, kind in kinds.items():
    if isinstance(kind, dict):
      features[name] = kind["value"]
    elif isinstance(kind, int):
      features[name] = bytes(data[at : at + kind])
      at += kind
    else:
      array = np.frombuffer(data, kind[0], math.prod(kind[1]), at)
      features[name] = array.reshape(kind[1])
      at += array.nbytes
  return key, features


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
  """The archives of a dataset. It can be sent to another process.

  Attributes:
    identity: str; equal if the pieces are equal.
    metadata: what the builder needs to know of the whole dataset, for JSON; complete once all pieces were yielded.
  """

  identity: str
  metadata: dict[str, Any]

  def __iter__(self) -> Iterator[Piece]: ...
