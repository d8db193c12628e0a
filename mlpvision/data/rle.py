"""Masks as COCO's run-length encoding (RLE), by pycocotools: {"size": [height, width], "counts": bytes}, compressed.

Runs go down the columns and begin with zeros. What is read from files is checked here, because pycocotools believes it.
"""

from collections.abc import Mapping, Sequence
import importlib.util
from types import ModuleType
from typing import Any

import numpy as np

from mlpvision.errors import UserError

_LARGEST = 1e6  # of a polygon's coordinates, in pixels: pycocotools walks along the outline


def check_installed() -> None:
  """Raises UserError if pycocotools is missing."""
  if importlib.util.find_spec("pycocotools") is None:
    raise UserError("detection needs the package pycocotools: pip install 'mlpvision[detection]'")


def encode(bitmap: np.ndarray) -> dict[str, Any]:
  """The RLE of a mask, bool or uint8 [H, W] of ones and zeros."""
  return _library().encode(np.asfortranarray(bitmap, np.uint8))


def encode_part(part: np.ndarray, top: int, left: int, height: int, width: int) -> dict[str, Any]:
  """The RLE of a mask of this height and width that is zero around `part`, bool [h, w] with its corner at top, left."""
  columns = np.zeros((part.shape[1], height), bool)
  columns[:, top : top + part.shape[0]] = part.T
  flat = np.concatenate([[False], columns.ravel(), [False]])
  edges = np.flatnonzero(flat[1:] != flat[:-1]) + left * height
  counts = np.diff(edges, prepend=0, append=height * width)
  if len(edges) and edges[-1] == height * width:
    counts = counts[:-1]
  return _library().frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)


def decode(found: Mapping[str, Any]) -> np.ndarray:
  """uint8 [H, W] of ones and zeros."""
  return _library().decode(found)


def area(found: Mapping[str, Any]) -> int:
  """The number of pixels."""
  return int(_library().area(found))


def of_segmentation(segmentation: Any, height: int, width: int) -> tuple[dict[str, Any] | None, int]:
  """(RLE or None, number of dropped polygons) of COCO's "segmentation", for an image of this size.

  segmentation: a list of polygons [x1, y1, x2, y2, ...], of which those without three points are dropped; or an RLE,
    whose counts are numbers or compressed. None if it has no polygon left.

  Raises ValueError with what is wrong: another structure, numbers that are not finite or beyond 10^6, an RLE of another
  size, or runs that do not cover the image.
  """
  if isinstance(segmentation, Mapping):
    return _checked(segmentation, height, width), 0
  if not isinstance(segmentation, list) or not all(isinstance(part, list) for part in segmentation):
    raise ValueError("a segmentation that is neither a list of polygons nor an RLE")
  for part in segmentation:
    if not all(type(value) in (int, float) for value in part):
      raise ValueError("a polygon that is not a list of numbers")
    if not all(abs(value) <= _LARGEST for value in part):  # NaN is not
      raise ValueError("a polygon with NaN, infinite or huge coordinates")
  polygons = [part for part in segmentation if len(part) >= 6 and len(part) % 2 == 0]
  dropped = len(segmentation) - len(polygons)
  if not polygons:
    return None, dropped
  library = _library()
  return library.merge(library.frPyObjects(polygons, height, width)), dropped


def _checked(found, height, width):
  size, counts = found.get("size"), found.get("counts")
  if not isinstance(size, list) or size != [height, width]:
    raise ValueError("an RLE of another size than its image")
  size = [height, width]  # they may be floats
  if isinstance(counts, list):
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
      raise ValueError("an RLE whose runs do not cover the image")
    return _library().frPyObjects({"size": size, "counts": counts}, height, width)
  if not isinstance(counts, str) or not counts.isascii() or not _covers(counts.encode(), height * width):
    raise ValueError("an RLE whose runs do not cover the image")
  return {"size": size, "counts": counts.encode()}


def _covers(text: bytes, pixels: int) -> bool:
  """Whether compressed runs are valid and sum to this number of pixels.

  A run is its difference to the run before the last, in groups of five bits, the lowest first; bit 6 says that there
  is another group, and bit 5 of the last one is the sign.
  """
  runs: Sequence[int] = []
  value = shift = 0
  for byte in text:
    byte -= 48
    if not 0 <= byte < 64 or shift > 30:
      return False
    value |= (byte & 31) << shift
    shift += 5
    if byte & 32:
      continue
    if byte & 16:
      value -= 1 << shift
    if len(runs) > 2:
      value += runs[-2]
    if value < 0:
      return False
    runs.append(value)
    value = shift = 0
  return not shift and sum(runs) == pixels


def _library() -> ModuleType:
  check_installed()
  import pycocotools.mask

  return pycocotools.mask
