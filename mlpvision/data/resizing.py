"""Antialiased bicubic resizing as Pillow does it, by a faster library where that is installed.

They agree to 1/255 in all but 2 of 10,000 values, where sharp edges overshoot, and there to 3/255. cykooz-resizer, with
SIMD, takes a fifth of the time; it has no wheel for Linux on aarch64.
"""

import importlib.util
import math

import numpy as np
from PIL import Image

from mlpvision.data import notes

FAST = importlib.util.find_spec("cykooz_resizer") is not None


def say_if_slow() -> None:
  """Says once that training images take longer here."""
  if not FAST:
    notes.say("note: cykooz-resizer is not installed, and Pillow resizes training images: five times slower, the same")


def resize(image: np.ndarray, size: int, y: float, x: float, height: float, width: float) -> np.ndarray:
  """Resizes a rectangle of an image, uint8 [H, W, 3], in fractional pixels, to uint8 [size, size, 3]."""
  top, left = int(y), int(x)
  part = image[top : math.ceil(y + height), left : math.ceil(x + width)]
  form = by_cykooz if FAST else by_pillow
  return form(part, size, y - top, x - left, height, width)


def by_cykooz(part: np.ndarray, size: int, y: float, x: float, height: float, width: float) -> np.ndarray:
  """`resize` by cykooz-resizer."""
  from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer

  source = ImageData(part.shape[1], part.shape[0], PixelType.U8x3, part.tobytes())
  result = ImageData(size, size, PixelType.U8x3)
  options = ResizeOptions(ResizeAlg.convolution(FilterType.catmull_rom), crop_box=CropBox(x, y, width, height))
  Resizer().resize(source, result, options)
  return np.frombuffer(result.get_buffer(), np.uint8).reshape(size, size, 3)


def by_pillow(part: np.ndarray, size: int, y: float, x: float, height: float, width: float) -> np.ndarray:
  """`resize` by Pillow."""
  box = (x, y, min(x + width, part.shape[1]), min(y + height, part.shape[0]))
  return np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.BICUBIC, box))
