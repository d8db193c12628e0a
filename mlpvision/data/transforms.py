"""Decodes images of any format: with libjpeg-turbo where possible in training, otherwise with Pillow."""

import os

import numpy as np
from PIL import Image
import simplejpeg

from mlpvision.data import image_files, pixels
from mlpvision.data.image_files import ImageError
from mlpvision.errors import UserError

_HEAD = 2**16  # bytes of a JPEG that usually have all of its metadata
_PNG_METADATA = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type")

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


def decode(data: bytes) -> np.ndarray:
  """Encoded bytes -> uint8 [H, W, 3]; like `open_image`, but faster. Raises ImageError if it cannot be decoded."""
  image = decode_jpeg(data)
  return pixels.to_array(open_image(data)) if image is None else image


def jpeg_size(data: bytes) -> tuple[int, int] | None:
  """(height, width) of an ordinary JPEG's upright image, from its header; None for anything else."""
  stored = _stored_size(data)
  return stored[::-1] if stored and _orientation(data) > 4 else stored


def upright_size(data: bytes) -> tuple[int, int]:
  """(height, width) of an upright image of any format, from its header. Raises ImageError if that is damaged."""
  found = jpeg_size(data)
  if found is None:
    image = image_files.opened(data, "the image")
    # Pillow would decode a PNG to look for metadata behind its pixels.
    is_plain = image.format == "PNG" and not any(mark in data for mark in _PNG_METADATA)
    found = image.size if not is_plain and image_files.orientation(image) > 4 else image.size[::-1]
  return found


def file_size(path: str | os.PathLike) -> tuple[int, int]:
  """As `upright_size`, of a file, of which only the beginning is read if it is a JPEG."""
  data = image_files.read(path, _HEAD)
  if len(data) == _HEAD:
    try:
      if data.startswith(b"\xff\xd8"):
        return upright_size(data)
    except ImageError:  # its metadata are longer
      pass
    data = image_files.read(path)
  return upright_size(data)


def decode_jpeg(data: bytes, reduction: int = 1) -> np.ndarray | None:
  """Encoded bytes -> upright RGB image uint8 [ceil(H / reduction), ceil(W / reduction), 3], as a view.

  None for anything but an ordinary JPEG (gray or YCbCr, undamaged, within `image_files`'s limits).

  At reductions of 2, 4 and 8, libjpeg-turbo's scaled inverse DCT skips most of the work. Files that make libjpeg warn,
  such as truncated ones that it fills with gray, give None.
  """
  stored = _stored_size(data)
  if stored is None:
    return None
  height, width = (-(-side // reduction) for side in stored)
  try:
    image_files.check_jpeg(data, stored, "")
    image = simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=reduction)
  except (ImageError, ValueError):
    return None
  return _UPRIGHT[_orientation(data)](image)


def _stored_size(data):
  try:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
  except ValueError:
    return None
  return (height, width) if colorspace in ("Gray", "YCbCr", "RGB") else None


def _orientation(data):
  header = data[: data.find(b"\xff\xda")]  # up to the pixels, of the image or of a thumbnail in the metadata
  if b"Exif\0\0" not in header and b"tiff:Orientation" not in header:
    return 1
  try:
    return image_files.orientation(image_files.opened(data, ""))
  except Exception:  # Pillow raises nearly anything on broken metadata, which do not affect the pixels
    return 1


def open_image(source: str | os.PathLike | bytes | Image.Image | np.ndarray) -> Image.Image:
  """Opens a path, encoded bytes, a PIL image or an array [H, W] or [H, W, 3] as an RGB PIL image.

  The EXIF orientation is applied, transparent pixels become white, values of more than 8 bits are scaled as the table
  in `pixels` says, and the first frame of an animation is used. Files may be JPEG, PNG, WebP, GIF, BMP, TIFF, PPM or
  AVIF, within the limits of `image_files`. Raises ImageError if it cannot be read.
  """
  is_path = isinstance(source, str | os.PathLike)
  name = str(source) if is_path else f"an image given as {type(source).__name__}"
  data = image_files.read(source) if is_path else source
  try:
    if isinstance(data, bytes):
      image = image_files.opened(data, name)
    elif isinstance(data, Image.Image | np.ndarray):
      image = data if isinstance(data, Image.Image) else pixels.from_array(data)
      image_files.check_pixels(image.size, name)
    else:
      raise ImageError(f"{name}: must be a path, encoded bytes, a PIL image or an array")
    image.load()
    return pixels.to_rgb(pixels.upright(image, image_files.orientation(image)))
  except UserError:
    raise
  except pixels.PixelError as error:
    raise ImageError(f"{name}: {error}") from error
  except MemoryError as error:
    raise ImageError(f"{name}: there is too little memory to decode it") from error
  except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
    raise ImageError(f"{name}: a damaged image ({error})") from error
