"""Images of any mode or dtype -> RGB of 8 bits."""

import numpy as np
from PIL import Image

_BAND = 2**20  # pixels converted at a time, so that a large image needs no third copy
# EXIF orientation -> Pillow's method that turns the stored image upright.
_METHODS = dict(zip(range(2, 9), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True))


def upright(image: Image.Image, orientation: int) -> Image.Image:
  """Undoes an EXIF orientation, 1 to 8; at 1, returns the image itself."""
  return image.transpose(_METHODS[orientation]) if orientation in _METHODS else image


def to_rgb(image: Image.Image) -> Image.Image:
  """Any mode -> RGB; returns the image itself if it is RGB already.

  Transparent pixels become white, and 16-bit gray is scaled to 8 bits.
  """
  if image.mode == "RGB":
    return image
  rows = max(1, _BAND // image.width)
  if rows >= image.height:
    return _convert(image)
  result = Image.new("RGB", image.size)
  for top in range(0, image.height, rows):
    result.paste(_convert(image.crop((0, top, image.width, min(image.height, top + rows)))), (0, top))
  return result


def _convert(image):
  if image.mode in ("I;16", "I;16L", "I;16B", "I"):
    image = Image.fromarray((np.asarray(image).astype(np.uint32).clip(0, 65535) >> 8).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  return image.convert("RGB")


def to_array(image: Image.Image) -> np.ndarray:
  """An RGB image as uint8 [H, W, 3]."""
  rows = max(1, _BAND // image.width)
  if rows >= image.height:
    return np.asarray(image)
  result = np.empty((image.height, image.width, 3), np.uint8)
  for top in range(0, image.height, rows):
    bottom = min(image.height, top + rows)
    result[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
  return result
