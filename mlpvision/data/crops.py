"""Crops: drawn first and applied afterwards, so that label maps and boxes can follow the image.

A training crop is a `Box` or an `Affine`. It is drawn from the image's size and a generator alone, and then applied to
images [H, W, 3] or label maps [H, W].
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from mlpvision.data import pixels, resizing
from mlpvision.data.transforms import decode_jpeg, jpeg_size, open_image

# The ratio of an image's sides, and the pixels of the result, up to which evaluation resizes the whole image before the
# crop, as the originals do.
_LONGEST, _LARGEST = 32, 2**26

# Pixels of a crop above which it is first reduced by an integer, as large JPEGs are while decoding.
_LARGE = 2**24

# grain and XLA already use every core.
cv2.setNumThreads(0)


class Box(NamedTuple):
  """A rectangle of an image, in whole pixels."""

  y: int
  x: int
  height: int
  width: int


class Affine(NamedTuple):
  """A transform of the whole image: degrees counterclockwise, a scale factor, and (x, y) pixels of the result."""

  rotation: float
  zoom: float
  shift: tuple[float, float]


def with_shape(data: bytes) -> tuple[bytes | np.ndarray, tuple[int, int]]:
  """(image for `cut`, (height, width) after EXIF rotation). Raises ImageError if it must be decoded and is damaged."""
  shape = jpeg_size(data)
  if shape is not None:
    return data, shape
  image = pixels.to_array(open_image(data))
  return image, image.shape[:2]


def draw_box(
  shape: tuple[int, int], rng: np.random.Generator, *, scale: Sequence[float], ratio: Sequence[float]
) -> Box:
  """Samples a random resized crop (Szegedy et al., arXiv 1409.4842; sampled as in torchvision).

  shape: (height, width) of the image; scale: (low, high) of the crop's share of the area, uniform; ratio: (low, high)
    of its width / height, log-uniform.
  """
  height, width = shape
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
  # No crop fits: the largest central one within the allowed ratios.
  w, h = max(1, min(width, round(height * ratio[1]))), max(1, min(height, round(width / ratio[0])))
  return Box((height - h) // 2, (width - w) // 2, h, w)


def cut(image: bytes | np.ndarray, box: Box, size: int) -> np.ndarray:
  """Crops an image (encoded, or uint8 [H, W, 3]) and resizes it, antialiased bicubic: uint8 [size, size, 3].

  Raises ImageError if the image is damaged.
  """
  if isinstance(image, np.ndarray):
    reduction = min(box.height, box.width) // (2 * size) if box.height * box.width > _LARGE else 1
    if reduction > 1:  # in three bytes per pixel; the resizer needs nine
      part = image[box.y : box.y + box.height, box.x : box.x + box.width]
      image = cv2.resize(part, (box.width // reduction, box.height // reduction), interpolation=cv2.INTER_AREA)
      box = Box(0, 0, *image.shape[:2])
    return resizing.resize(image, size, *box)
  # libjpeg's reduction must leave at least two pixels for each pixel of the result, or it would be visible.
  reduction = next((r for r in (8, 4, 2) if min(box.height, box.width) >= 2 * r * size), 1)
  decoded = decode_jpeg(image, reduction)
  if decoded is None:  # the header is supported, but not the rest of the file
    decoded, reduction = pixels.to_array(open_image(image)), 1
  return resizing.resize(decoded, size, *(side / reduction for side in box))


def cut_map(labels: np.ndarray, box: Box, size: int) -> np.ndarray:
  """Crops a label map [H, W] and resizes it, nearest neighbor: [size, size], of the same dtype."""
  part = labels[box.y : box.y + box.height, box.x : box.x + box.width]
  rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in part.shape)
  return part[rows[:, None], columns]


def draw_affine(rng: np.random.Generator, *, rotation: float, zoom: float, shift: float) -> Affine:
  """Samples a transform: up to +-rotation degrees, 1 +-zoom times the size, and +-shift pixels of the result."""
  angle, factor = rng.uniform(-rotation, rotation), rng.uniform(1 - zoom, 1 + zoom)
  return Affine(angle, factor, tuple(rng.uniform(-shift, shift, 2)))


def warp(image: np.ndarray, affine: Affine, size: int) -> np.ndarray:
  """Applies the transform to an image uint8 [H, W, 3]: uint8 [size, size, 3], black outside the image."""
  shrink = max(image.shape[:2]) / size
  if shrink > 2:  # warpAffine reads four pixels for each pixel of the result, and would skip the others
    sides = [max(1, round(2 * side / shrink)) for side in (image.shape[1], image.shape[0])]
    image = cv2.resize(image, sides, interpolation=cv2.INTER_AREA)
  return cv2.warpAffine(image, _matrix(image.shape, affine, size), (size, size), flags=cv2.INTER_LINEAR)


def warp_map(labels: np.ndarray, affine: Affine, size: int) -> np.ndarray:
  """Applies the transform to a label map [H, W], nearest neighbor: [size, size], 0 outside the map."""
  return cv2.warpAffine(labels, _matrix(labels.shape, affine, size), (size, size), flags=cv2.INTER_NEAREST)


def _matrix(shape, affine, size):
  """The matrix, float64 [2, 3], from pixels of the image to pixels of the result."""
  height, width = shape[:2]
  factor = affine.zoom * size / max(height, width)
  matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), affine.rotation, factor)
  matrix[:, 2] += (size - 1) / 2 - np.array([width - 1, height - 1]) / 2 + np.array(affine.shift)
  return matrix


def center_crop(image: Image.Image, size: int, *, crop_ratio: float, interpolation: str) -> np.ndarray:
  """Resizes the shorter side to size / crop_ratio (antialiased), then crops the center: uint8 [size, size, 3].

  image: in mode RGB; crop_ratio: in (0, 1]; interpolation: "bicubic" or "bilinear".

  Equal to torchvision's and timm's, bit for bit. Where one side is more than 32 times the other, only the part that the
  crop shows is resized, so that memory does not grow with the ratio; values then differ by rounding. The same holds
  for a crop of a very small part.
  """
  resampling = Image.Resampling[interpolation.upper()]
  short = math.floor(size / crop_ratio)
  resized = [int(short * side / min(image.size)) for side in image.size]  # torchvision's rounding
  left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
  if max(image.size) > _LONGEST * min(image.size) or resized[0] * resized[1] > _LARGEST:
    return _resize_center(image, resized, (left, top), size, resampling)
  if list(image.size) != resized:
    image = image.resize(resized, resampling)
  return np.asarray(image.crop((left, top, left + size, top + size)))


def _resize_center(image, resized, corner, size, resampling):
  """A square of the resized image, without the rest of it.

  Not for ordinary images: Pillow takes `box` in single precision and chooses the order of its two passes by the sizes,
  so that values differ by rounding from those of the whole resized image.
  """
  edges, inner = [], []
  for side, target, start in zip(image.size, resized, corner, strict=True):
    scale = side / target
    low, high = start * scale, (start + size) * scale
    margin = 3 * max(scale, 1)  # the kernels reach two pixels, of the image or of the result, whichever are larger
    first, last = max(0, math.floor(low - margin)), min(side, math.ceil(high + margin))
    edges.append((first, last))
    inner.append((low - first, min(high - first, last - first)))
  part = image.crop((edges[0][0], edges[1][0], edges[0][1], edges[1][1]))
  return np.asarray(part.resize((size, size), resampling, (inner[0][0], inner[1][0], inner[0][1], inner[1][1])))
