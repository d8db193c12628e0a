"""Encoded images to uint8 arrays [size, size, 3], for training (libjpeg-turbo, SIMD) and for evaluation (Pillow)."""

from collections.abc import Iterable, Sequence
import io
import math
import os
from typing import Any

import cv2
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mlpvision.data import jpeg
from mlpvision.errors import UserError

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# Pillow's antialiased bicubic, which the recipes were made with, to 1/255 per pixel, at a fifth of the time.
_BICUBIC = ResizeAlg.convolution(FilterType.catmull_rom)

# Grain and XLA already use every core.
cv2.setNumThreads(0)


class ImageError(UserError):
  """An image that is damaged, or not an image at all."""


def decode(data: bytes) -> np.ndarray:
  """Encoded bytes -> uint8 [H, W, 3], as `open_image` would give it, but faster.

  Raises:
    ImageError: not an image, or a damaged one.
  """
  image = jpeg.decode(data)
  return np.asarray(open_image(data)) if image is None else image


def random_resized_crop(
  data: bytes, size: int, rng: np.random.Generator, *, scale: Sequence[float], ratio: Sequence[float]
) -> np.ndarray:
  """A random part of the image, resized to size x size by antialiased bicubic interpolation.

  Args:
    data: the encoded image, bytes.
    size: side of the result in pixels.
    rng: np.random.Generator.
    scale: (low, high) of the part's share of the area, uniform.
    ratio: (low, high) of its width over its height, log-uniform.

  Returns:
    uint8 [size, size, 3].

  Raises:
    ImageError: not an image, or a damaged one.
  """
  image, shape, reduction = None, jpeg.read_size(data), 1
  if shape is None:
    image = np.asarray(open_image(data))
    shape = image.shape[:2]
  y, x, h, w = _random_box(*shape, rng, scale=scale, ratio=ratio)
  if image is None:
    # With fewer than two pixels left for each one of the result, libjpeg's own reduction would show.
    reduction = next((r for r in (8, 4, 2) if min(h, w) >= 2 * r * size), 1)
    image = jpeg.decode(data, reduction)
  if image is None:  # an ordinary header, but an odd body
    image, reduction = np.asarray(open_image(data)), 1
  return _resize(image, size, [side / reduction for side in (y, x, h, w)])


def _random_box(height, width, rng, *, scale, ratio):
  """(y, x, height, width) in whole pixels (Szegedy et al., arXiv 1409.4842; torchvision's sampling)."""
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
  # No part fits: the largest central one within the allowed ratios.
  w, h = max(1, min(width, round(height * ratio[1]))), max(1, min(height, round(width / ratio[0])))
  return (height - h) // 2, (width - w) // 2, h, w


def _resize(image, size, box):
  """The part (y, x, height, width), which may cut pixels in two, at size x size."""
  y, x, h, w = box
  top, left = int(y), int(x)
  part = image[top : math.ceil(y + h), left : math.ceil(x + w)]
  source = ImageData(part.shape[1], part.shape[0], PixelType.U8x3, part.tobytes())
  result = ImageData(size, size, PixelType.U8x3)
  Resizer().resize(source, result, ResizeOptions(_BICUBIC, crop_box=CropBox(x - left, y - top, w, h)))
  return np.frombuffer(result.get_buffer(), np.uint8).reshape(size, size, 3)


def random_affine(
  image: np.ndarray, size: int, rng: np.random.Generator, *, rotation: float, zoom: float, shift: float
) -> np.ndarray:
  """The whole image at size x size, rotated, zoomed and shifted at random; black comes in from outside.

  Args:
    image: uint8 [H, W, 3].
    size: side of the result in pixels.
    rng: np.random.Generator.
    rotation, zoom, shift: at most this many degrees, this fraction, this many pixels of the result, either way.
  """
  shrink = max(image.shape[:2]) / size
  if shrink > 2:  # the warp reads four pixels for each one of the result, and would skip the others
    sides = [max(1, round(2 * side / shrink)) for side in (image.shape[1], image.shape[0])]
    image = cv2.resize(image, sides, interpolation=cv2.INTER_AREA)
  height, width = image.shape[:2]
  angle = rng.uniform(-rotation, rotation)
  factor = rng.uniform(1 - zoom, 1 + zoom) * size / max(height, width)
  matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, factor)
  matrix[:, 2] += (size - 1) / 2 - np.array([width - 1, height - 1]) / 2 + rng.uniform(-shift, shift, 2)
  return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def center_crop(image: Image.Image, size: int, *, crop_ratio: float, interpolation: str) -> np.ndarray:
  """Evaluation's view: shorter side to size / crop_ratio (antialiased), then the central size x size.

  Args:
    image: PIL image in mode RGB.
    size: side of the result in pixels.
    crop_ratio: share of the shorter side that the crop keeps, in (0, 1].
    interpolation: a key of INTERPOLATIONS.

  Returns:
    uint8 [size, size, 3].
  """
  short = math.floor(size / crop_ratio)
  resized = [int(short * side / min(image.size)) for side in image.size]  # torchvision's rounding
  if list(image.size) != resized:
    image = image.resize(resized, INTERPOLATIONS[interpolation])
  left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
  return np.asarray(image.crop((left, top, left + size, top + size)))


def open_all(sources: Iterable[Any]) -> list[Image.Image]:
  """`open_image` of each.

  Raises:
    UserError: some cannot be read; all of them are listed.
  """
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
  """A PIL image in mode RGB, upright, from a path, encoded bytes, a PIL image or a uint8 array [H, W] or [H, W, 3].

  The first frame of an animation; transparent pixels show white; 16-bit grey is scaled to 8 bits; an EXIF orientation
  is applied.

  Raises:
    ImageError: not an image, or a damaged one.
    UserError: no such file.
  """
  name = str(source) if isinstance(source, str | os.PathLike) else f"a picture given as {type(source).__name__}"
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
