"""Fast decoding of ordinary JPEGs (gray or YCbCr, undamaged) with libjpeg-turbo.

All functions return None for anything else; callers then fall back to Pillow (`transforms.open_image`).
"""

import io

import numpy as np
from PIL import Image
import simplejpeg

# EXIF orientation -> the upright image, as a view of the stored one.
_UPRIGHT = {
  1: lambda a: a,
  2: lambda a: a[:, ::-1],
  3: lambda a: a[::-1, ::-1],
  4: lambda a: a[::-1],
  5: lambda a: a.swapaxes(0, 1),
  6: lambda a: a[::-1].swapaxes(0, 1),
  7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
  8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def read_size(data: bytes) -> tuple[int, int] | None:
  """(height, width) of the upright image, from the header of encoded bytes; or None."""
  stored = _stored_size(data)
  return stored[::-1] if stored and _orientation(data) > 4 else stored


def decode(data: bytes, reduction: int = 1) -> np.ndarray | None:
  """Encoded bytes -> upright RGB image uint8 [ceil(H / reduction), ceil(W / reduction), 3], as a view; or None.

  At reductions of 2, 4 and 8, libjpeg-turbo's scaled inverse DCT skips most of the work. Files that make libjpeg warn,
  such as truncated ones that it fills with gray, give None.
  """
  stored = _stored_size(data)
  if stored is None:
    return None
  height, width = (-(-side // reduction) for side in stored)
  try:
    image = simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=reduction)
  except ValueError:
    return None
  return _UPRIGHT[_orientation(data)](image)


def _stored_size(data):
  try:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
  except ValueError:
    return None
  # Pillow rejects larger images, which are attacks or have a broken header.
  is_ordinary = colorspace in ("Gray", "YCbCr", "RGB") and height * width <= Image.MAX_IMAGE_PIXELS
  return (height, width) if is_ordinary else None


def _orientation(data):
  header = data[: data.find(b"\xff\xda")]  # up to the pixels, of the image or of a thumbnail in the metadata
  if b"Exif\0\0" not in header and b"tiff:Orientation" not in header:
    return 1
  try:
    orientation = Image.open(io.BytesIO(data)).getexif().get(0x0112, 1)
  except Exception:  # Pillow raises nearly anything on broken metadata, which do not affect the pixels
    return 1
  return orientation if orientation in _UPRIGHT else 1
