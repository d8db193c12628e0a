"""Decodes images of any format: with libjpeg-turbo where possible in training, otherwise with Pillow."""

from collections.abc import Iterable
import io
import os
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mlpvision.data import jpeg
from mlpvision.errors import UserError


class ImageError(UserError):
  """An image that is damaged, or not an image at all."""


def decode(data: bytes) -> np.ndarray:
  """Encoded bytes -> uint8 [H, W, 3]; like `open_image`, but faster. Raises ImageError if it cannot be decoded."""
  image = jpeg.decode(data)
  return np.asarray(open_image(data)) if image is None else image


def open_all(sources: Iterable[Any]) -> list[Image.Image]:
  """`open_image` of each source. Raises one UserError that lists all unreadable ones."""
  images, problems = [], []
  for source in sources:
    try:
      images.append(open_image(source))
    except UserError as error:
      problems.append(str(error))
  if problems:
    raise UserError("\n".join(problems))
  return images


def open_image(source: str | os.PathLike | bytes | Image.Image | np.ndarray) -> Image.Image:
  """Opens a path, encoded bytes, a PIL image or a uint8 array [H, W] or [H, W, 3] as an RGB PIL image.

  The EXIF orientation is applied, transparent pixels become white, 16-bit gray is scaled to 8 bits, and the first frame
  of an animation is used. Raises ImageError if it cannot be decoded, UserError if there is no such file.
  """
  name = str(source) if isinstance(source, str | os.PathLike) else f"an image given as {type(source).__name__}"
  try:
    if isinstance(source, np.ndarray):
      source = Image.fromarray(source)
    if isinstance(source, bytes):
      source = io.BytesIO(source)
    image = source if isinstance(source, Image.Image) else Image.open(source)
    image.load()
    return _to_rgb(ImageOps.exif_transpose(image))
  except FileNotFoundError as error:
    raise UserError(f"{name}: there is no such file") from error
  except UnidentifiedImageError as error:
    raise ImageError(f"{name}: not an image in a format that Pillow can read") from error
  except MemoryError:
    raise
  except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
    raise ImageError(f"{name}: a damaged image ({error})") from error


def _to_rgb(image):
  if image.mode in ("I;16", "I;16L", "I;16B", "I"):
    image = Image.fromarray((np.asarray(image).astype(np.uint32).clip(0, 65535) >> 8).astype(np.uint8))
  if image.mode == "RGB":
    return image
  if image.has_transparency_data:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  return image.convert("RGB")
