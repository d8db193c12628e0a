"""Images of any mode, and arrays of any dtype, -> RGB of 8 bits. No image becomes black because its range was guessed.

| values | are taken as |
|---|---|
| 8 bits | 0 to 255 |
| bool | 0 and 1 |
| floats up to 1 | 0 to 1, also if all are 0 or 1 |
| floats up to 255, above 16 | 0 to 255 |
| wider integers, above 255 | 0 to 65,535; larger values are white |

All other ranges are refused: negative values, as of normalized images; NaN; floats that are slightly larger than 1; and
wider integers up to 255, which may be 8 bits or nearly black.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

_BAND = 2**20  # pixels converted at a time, so that a large image needs no third copy
_TOLERANCE = 1e-3  # of floats, for values that were rounded
# EXIF orientation -> Pillow's method that turns the stored image upright.
_METHODS = dict(zip(range(2, 9), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True))
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


class PixelError(ValueError):
  """An image whose values cannot be interpreted."""


def upright(image: Image.Image, orientation: int) -> Image.Image:
  """Undoes an EXIF orientation, 1 to 8; at 1, returns the image itself."""
  return image.transpose(_METHODS[orientation]) if orientation in _METHODS else image


def from_array(array: np.ndarray) -> Image.Image:
  """An array [H, W] or [H, W, 1 to 4] of numbers (gray, alpha, RGB, RGBA) -> a PIL image of 8 bits.

  Raises PixelError for another shape or dtype, and if the range of its values cannot be told.
  """
  array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
  if array.ndim not in (2, 3) or array.shape[2:] not in ((), (2,), (3,), (4,)) or 0 in array.shape:
    raise PixelError(f"an array of shape {list(array.shape)}; expected [H, W] or [H, W, 3]")
  if array.dtype.kind not in "buif":
    raise PixelError(f"an array of {array.dtype}; expected numbers")
  if array.dtype == np.uint8:
    return Image.fromarray(np.ascontiguousarray(array))
  return Image.fromarray(_to_bytes(array, _factor([array])))


def to_rgb(image: Image.Image) -> Image.Image:
  """Any mode -> RGB; returns the image itself if it is RGB already. Transparent pixels become white.

  Raises PixelError if the range of its values cannot be told.
  """
  if image.mode == "RGB":
    return image
  factor = _factor(map(np.asarray, _bands(image))) if image.mode in _WIDE else None
  if image.width * image.height <= _BAND:
    return _convert(image, factor)
  result, top = Image.new("RGB", image.size), 0
  for band in _bands(image):
    result.paste(_convert(band, factor), (0, top))
    top += band.height
  return result


def to_array(image: Image.Image) -> np.ndarray:
  """An RGB image as uint8 [H, W, 3]."""
  if image.width * image.height <= _BAND:
    return np.asarray(image)
  result, top = np.empty((image.height, image.width, 3), np.uint8), 0
  for band in _bands(image):
    result[top : top + band.height] = np.asarray(band)
    top += band.height
  return result


def _bands(image) -> Iterator[Image.Image]:
  rows = max(1, _BAND // image.width)
  for top in range(0, image.height, rows):
    yield image.crop((0, top, image.width, min(image.height, top + rows)))


def _convert(image, factor):
  if factor is not None:
    image = Image.fromarray(_to_bytes(np.asarray(image), factor))
  if image.has_transparency_data:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  return image.convert("RGB")


def _factor(parts):
  """What to multiply values of more than 8 bits by; PixelError if their range cannot be told."""
  low, high = np.inf, -np.inf
  for part in parts:
    if part.dtype.kind == "b":
      return 255
    if part.dtype.kind == "f" and not np.isfinite(part).all():
      raise PixelError("values that are not finite")
    low, high = min(low, float(part.min())), max(high, float(part.max()))
    kind = part.dtype.kind
  span = f"values from {low:.4g} to {high:.4g}"
  if low < (-_TOLERANCE if kind == "f" else 0):
    raise PixelError(f"{span}: expected an image, without negative values; a normalized one must be scaled back")
  if kind != "f":
    if 0 < high <= 255:
      raise PixelError(f"{span} in more than 8 bits: convert it to 8 bits if it has 0 to 255, or scale it to 65535")
    return 1 / 256
  if high <= 1 + _TOLERANCE:
    return 255
  if not 16 < high <= 255 + _TOLERANCE:
    raise PixelError(f"{span}: neither 0 to 1 nor 0 to 255; clip or scale it")
  return 1


def _to_bytes(values, factor):
  if values.dtype.kind in "iu":
    return (values.clip(0, 65535).astype(np.uint16) >> 8).astype(np.uint8)
  return np.rint(values.astype(np.float32) * np.float32(factor)).clip(0, 255).astype(np.uint8)
