"""Crops: drawn first, then applied, so that whatever belongs to an image can follow it.

A training crop is a `Box` or an `Affine`. Each is drawn from the image's size and a generator alone; the functions that
apply it take images [H, W, 3] or label maps [H, W].
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import cv2
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
import numpy as np
from PIL import Image

from mlpvision.data import jpeg
from mlpvision.data.transforms import open_image

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# Pillow's antialiased bicubic, which the recipes were made with, to 1/255 per pixel, at a fifth of the time.
_BICUBIC = ResizeAlg.convolution(FilterType.catmull_rom)

# Grain and XLA already use every core.
cv2.setNumThreads(0)


class Box(NamedTuple):
  """A part of an image, in whole pixels."""

  y: int
  x: int
  height: int
  width: int


class Affine(NamedTuple):
  """A move of the whole image: degrees counter-clockwise, a factor, and pixels of the result."""

  rotation: float
  zoom: float
  shift: tuple[float, float]


def with_shape(data: bytes) -> tuple[bytes | np.ndarray, tuple[int, int]]:
  """(what `cut` takes, (height, width) of the upright image): from the header where that tells, else decoded.

  Raises:
    ImageError: not an image, or a damaged one.
  """
  shape = jpeg.read_size(data)
  if shape is not None:
    return data, shape
  image = np.asarray(open_image(data))
  return image, image.shape[:2]


def draw_box(
  shape: tuple[int, int], rng: np.random.Generator, *, scale: Sequence[float], ratio: Sequence[float]
) -> Box:
  """A random part of an image (Szegedy et al., arXiv 1409.4842; torchvision's sampling).

  Args:
    shape: (height, width) of the image.
    rng: np.random.Generator.
    scale: (low, high) of the part's share of the area, uniform.
    ratio: (low, high) of its width over its height, log-uniform.
  """
  height, width = shape
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
  # No part fits: the largest central one within the allowed ratios.
  w, h = max(1, min(width, round(height * ratio[1]))), max(1, min(height, round(width / ratio[0])))
  return Box((height - h) // 2, (width - w) // 2, h, w)


def cut(image: bytes | np.ndarray, box: Box, size: int) -> np.ndarray:
  """The part of an image, resized by antialiased bicubic interpolation: uint8 [size, size, 3].

  Args:
    image: encoded, or uint8 [H, W, 3].
    box: the part.
    size: side of the result in pixels.

  Raises:
    ImageError: a damaged image.
  """
  if isinstance(image, np.ndarray):
    return _resize(image, size, box)
  # With fewer than two pixels left for each one of the result, libjpeg's own reduction would show.
  reduction = next((r for r in (8, 4, 2) if min(box.height, box.width) >= 2 * r * size), 1)
  pixels = jpeg.decode(image, reduction)
  if pixels is None:  # an ordinary header, but an odd body
    pixels, reduction = np.asarray(open_image(image)), 1
  return _resize(pixels, size, [side / reduction for side in box])


def cut_map(labels: np.ndarray, box: Box, size: int) -> np.ndarray:
  """The same part of a label map [H, W], resized by nearest neighbour: [size, size], of the same dtype."""
  part = labels[box.y : box.y + box.height, box.x : box.x + box.width]
  rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in part.shape)
  return part[rows[:, None], columns]


def _resize(image, size, box):
  """The part (y, x, height, width), which may cut pixels in two, at size x size."""
  y, x, h, w = box
  top, left = int(y), int(x)
  part = image[top : math.ceil(y + h), left : math.ceil(x + w)]
  source = ImageData(part.shape[1], part.shape[0], PixelType.U8x3, part.tobytes())
  result = ImageData(size, size, PixelType.U8x3)
  Resizer().resize(source, result, ResizeOptions(_BICUBIC, crop_box=CropBox(x - left, y - top, w, h)))
  return np.frombuffer(result.get_buffer(), np.uint8).reshape(size, size, 3)


def draw_affine(rng: np.random.Generator, *, rotation: float, zoom: float, shift: float) -> Affine:
  """A random move: at most this many degrees, this fraction, this many pixels of the result, either way."""
  angle, factor = rng.uniform(-rotation, rotation), rng.uniform(1 - zoom, 1 + zoom)
  return Affine(angle, factor, tuple(rng.uniform(-shift, shift, 2)))


def warp(image: np.ndarray, affine: Affine, size: int) -> np.ndarray:
  """The whole image uint8 [H, W, 3], moved: uint8 [size, size, 3]; black comes in from outside."""
  shrink = max(image.shape[:2]) / size
  if shrink > 2:  # the warp reads four pixels for each one of the result, and would skip the others
    sides = [max(1, round(2 * side / shrink)) for side in (image.shape[1], image.shape[0])]
    image = cv2.resize(image, sides, interpolation=cv2.INTER_AREA)
  return cv2.warpAffine(image, _matrix(image.shape, affine, size), (size, size), flags=cv2.INTER_LINEAR)


def warp_map(labels: np.ndarray, affine: Affine, size: int) -> np.ndarray:
  """The same move of a label map [H, W], by nearest neighbour: [size, size]; zeros come in from outside."""
  return cv2.warpAffine(labels, _matrix(labels.shape, affine, size), (size, size), flags=cv2.INTER_NEAREST)


def _matrix(shape, affine, size):
  """From pixels of an image to pixels of the result, float64 [2, 3]."""
  height, width = shape[:2]
  factor = affine.zoom * size / max(height, width)
  matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), affine.rotation, factor)
  matrix[:, 2] += (size - 1) / 2 - np.array([width - 1, height - 1]) / 2 + np.array(affine.shift)
  return matrix


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
