"""Encoded images to uint8 arrays [size, size, 3], for training (OpenCV) and for evaluation (Pillow)."""

import io
import math

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mlpvision.errors import UserError

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# Grain and XLA already use every core.
cv2.setNumThreads(0)


def decode(data):
  """Encoded bytes -> uint8 [H, W, 3], RGB."""
  image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
  if image is None:
    raise UserError("cannot decode an image of the training set")
  return image


def random_resized_crop(image, size, rng, *, scale, ratio):
  """A random part of the image, resized to size x size (Szegedy et al., arXiv 1409.4842; torchvision's sampling).

  Args:
    image: uint8 [H, W, 3].
    size: side of the result in pixels.
    rng: np.random.Generator.
    scale: (low, high) of the part's share of the area, uniform.
    ratio: (low, high) of its width over its height, log-uniform.
  """
  height, width = image.shape[:2]
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
      break
  else:  # No part fits: the largest central one within the allowed ratios.
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    y, x = (height - h) // 2, (width - w) // 2
  return cv2.resize(image[y : y + h, x : x + w], (size, size), interpolation=cv2.INTER_CUBIC)


def random_affine(image, size, rng, *, rotation, zoom, shift):
  """The whole image at size x size, rotated, zoomed and shifted at random; black comes in from outside.

  Args:
    image: uint8 [H, W, 3].
    size: side of the result in pixels.
    rng: np.random.Generator.
    rotation, zoom, shift: at most this many degrees, this fraction, this many pixels of the result, either way.
  """
  height, width = image.shape[:2]
  angle = rng.uniform(-rotation, rotation)
  factor = rng.uniform(1 - zoom, 1 + zoom) * size / max(height, width)
  matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, factor)
  matrix[:, 2] += (size - 1) / 2 - np.array([width - 1, height - 1]) / 2 + rng.uniform(-shift, shift, 2)
  return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def center_crop(image, size, *, crop_ratio, interpolation):
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


def open_image(source):
  """A PIL image in mode RGB from a path or from encoded bytes, upright, whatever its mode.

  Transparent pixels show white; 16-bit grey is scaled to 8 bits; an EXIF orientation is applied.

  Raises:
    UserError: not an image, or a damaged one.
  """
  name = "an encoded image" if isinstance(source, bytes) else str(source)
  try:
    image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    image.load()
  except FileNotFoundError as error:
    raise UserError(f"{name}: there is no such file") from error
  except UnidentifiedImageError as error:
    raise UserError(f"{name}: not an image in a format that Pillow can read") from error
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    raise UserError(f"{name}: a damaged image ({error})") from error
  image = ImageOps.exif_transpose(image)
  if image.mode in ("I;16", "I;16L", "I;16B", "I"):
    image = Image.fromarray((np.asarray(image).astype(np.uint32).clip(0, 65535) >> 8).astype(np.uint8))
  if image.mode == "RGB":
    return image
  if image.has_transparency_data:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  return image.convert("RGB")
