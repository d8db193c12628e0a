"""Canvases: a few shapes that images of any size are padded to, because each shape is compiled separately."""

from collections.abc import Sequence

# (longest side, multiple that sides up to it are rounded up to), in pixels.
_STEPS = ((256, 32), (512, 64), (1024, 128))
_BEYOND = 256


def side(length: int) -> int:
  """The smallest side of a canvas that has room for `length` pixels."""
  multiple = next((multiple for longest, multiple in _STEPS if length <= longest), _BEYOND)
  return max(1, -(-length // multiple)) * multiple


def shape(size: Sequence[int]) -> tuple[int, int]:
  """(height, width) of the canvas for an image of this size."""
  height, width = size
  return side(height), side(width)
