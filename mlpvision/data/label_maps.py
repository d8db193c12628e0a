"""Label maps: 8-bit PNGs whose values are the indices of classes; 255 marks pixels without a label.

A map that is damaged raises ImageError, so that training replaces it. One of the wrong kind, of another size than its
image, or with an unknown index is a mistake in the dataset and raises another UserError, which ends the run.
"""

from collections.abc import Sequence
import os
import struct

import cv2
import numpy as np

from mlpvision.data import image_files
from mlpvision.data.dense_transforms import IGNORE, histogram
from mlpvision.data.image_files import ImageError
from mlpvision.errors import UserError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 26  # bytes of a PNG up to its color type
_GRAY, _PALETTE = 0, 3  # PNG's color types
_COLORS = {_GRAY: "gray", 2: "RGB", _PALETTE: "palette", 4: "gray with alpha", 6: "RGB with alpha"}
_EXPECTED = "a label map must be a PNG with 8 bits, gray or with a palette, whose values are the indices of classes"
# 0 becomes IGNORE, and the others one less.
_REDUCED = np.array([IGNORE, *range(254), IGNORE], np.uint8)


def size(data: bytes) -> tuple[int, int]:
  """(height, width) of an encoded map.

  Raises ImageError if it is damaged, and UserError if it is of the wrong kind.
  """
  if not data.startswith(_SIGNATURE):
    image = image_files.opened(data, "its label map")
    raise UserError(f"its label map is a {image.format}; {_EXPECTED}")
  try:
    length, kind, width, height, depth, color = struct.unpack(">I4sIIBB", data[8:_HEADER])
  except struct.error as error:
    raise ImageError("its label map is cut off within its header") from error
  if (length, kind) != (13, b"IHDR") or color not in _COLORS or 0 in (width, height):
    raise ImageError("its label map has a damaged header")
  if (color, depth) != (_GRAY, 8) and color != _PALETTE:
    raise UserError(f"its label map is a PNG with {depth} bits per channel, {_COLORS[color]}; {_EXPECTED}")
  return height, width


def file_size(path: str | os.PathLike) -> tuple[int, int]:
  """As `size`, of a file, of which only the beginning is read if it is a PNG."""
  head = image_files.read(path, _HEADER)
  return size(head if head.startswith(_SIGNATURE) else image_files.read(path))


def decode(data: bytes) -> np.ndarray:
  """Encoded bytes -> uint8 [H, W]: the values as stored, indices of the palette if it has one.

  Raises ImageError if it is damaged or too large, and UserError if it is of the wrong kind.
  """
  size(data)
  image = image_files.opened(data, "its label map")
  try:
    image.load()
    return np.array(image, np.uint8)
  except MemoryError as error:
    raise ImageError("there is too little memory to decode its label map") from error
  except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
    raise ImageError(f"its label map is damaged ({error})") from error


def check_size(label: Sequence[int], image: Sequence[int]) -> None:
  """Raises UserError if the (height, width) of a map and of its upright image differ."""
  if tuple(label) != tuple(image):
    (height, width), (image_height, image_width) = label, image
    raise UserError(
      f"its label map has {width} x {height} pixels, the image {image_width} x {image_height}, upright; a map must have"
      " the image's size. Remove the pair, or write the map again"
    )


def indices(labels: np.ndarray, num_classes: int, *, reduce_zero: bool = False) -> np.ndarray:
  """The index of each pixel's class, IGNORE where it has none: uint8 [H, W].

  labels: as stored; reduce_zero: 0 means no label there, and class i is stored as i + 1 (`data.reduce_zero_label`).

  Raises UserError if the map has an index that is neither a class nor IGNORE.
  """
  reduced = cv2.LUT(labels, _REDUCED) if reduce_zero else labels
  unknown = np.flatnonzero(histogram(reduced)[num_classes:IGNORE])
  if unknown.size:
    index = int(unknown[0]) + num_classes
    stored = f", stored as {index + 1}," if reduce_zero else ""
    raise UserError(
      f"its label map has the index {index}{stored} but there are {num_classes} classes, 0 to {num_classes - 1}, and"
      f" {IGNORE} for no label. Correct the map or the list of classes"
      f"{'' if reduce_zero else '; if 0 means no label, set data.reduce_zero_label=True'}"
    )
  return reduced
