"""RandAugment's operations on uint8 RGB images [H, W, 3], with OpenCV.

Each operation takes (image, argument, fill) and returns a new image; `fill` is the color of pixels outside the image.
`cubic` and `nearest` make one of a name in MATRICES. Results equal Pillow's pixel for pixel, with two exceptions:
  - Cubic interpolation uses a = -0.75 (Pillow -0.5), rounds (Pillow truncates), and blends with the fill within two
    pixels of the image's border. On photographs the mean difference is below 2/255.
  - The gray values of `color` and `contrast` may differ by one.
"""

from collections.abc import Callable
import math

import cv2
import numpy as np

Color = tuple[int, int, int]

_VALUES = np.arange(256)
_SMOOTH = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def _lookup(image, table):
  """Maps every value v of channel c to table[v] or table[v, c], truncated and clipped to uint8."""
  return cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8).reshape(256, 1, -1))


def _blend(other, image, factor):
  """other + factor (image - other); -0.499 turns OpenCV's rounding into Pillow's truncation."""
  return cv2.addWeighted(image, factor, other, 1 - factor, -0.499)


def _gray(image):
  return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def autocontrast(image: np.ndarray, argument: None, fill: Color) -> np.ndarray:
  low, high = (extreme.astype(float) for extreme in (image.min(0).min(0), image.max(0).max(0)))
  scale = 255 / np.maximum(high - low, 1)
  return _lookup(image, np.where(high > low, _VALUES[:, None] * scale - low * scale, _VALUES[:, None]))


def equalize(image: np.ndarray, argument: None, fill: Color) -> np.ndarray:
  table = np.empty((256, 3), int)
  for channel in range(3):
    counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(int)
    step = (counts.sum() - counts[counts > 0][-1]) // 255
    table[:, channel] = (step // 2 + np.cumsum(counts) - counts) // step if step else _VALUES
  return _lookup(image, table)


def invert(image: np.ndarray, argument: None, fill: Color) -> np.ndarray:
  return cv2.bitwise_not(image)


def posterize(image: np.ndarray, bits: int, fill: Color) -> np.ndarray:
  return _lookup(image, _VALUES & (256 - 2 ** (8 - bits)))


def solarize(image: np.ndarray, threshold: int, fill: Color) -> np.ndarray:
  return _lookup(image, np.where(_VALUES < threshold, _VALUES, 255 - _VALUES))


def solarize_add(image: np.ndarray, addition: int, fill: Color) -> np.ndarray:
  return _lookup(image, np.where(_VALUES < 128, _VALUES + addition, _VALUES))


def color(image: np.ndarray, factor: float, fill: Color) -> np.ndarray:
  return _blend(cv2.cvtColor(_gray(image), cv2.COLOR_GRAY2RGB), image, factor)


def _scale_about(image, factor, value):
  return _lookup(image, value + np.float32(factor) * (_VALUES - value).astype(np.float32))  # Pillow's precision


def contrast(image: np.ndarray, factor: float, fill: Color) -> np.ndarray:
  return _scale_about(image, factor, int(cv2.mean(_gray(image))[0] + 0.5))


def contrast_by_size(image: np.ndarray, factor: float, fill: Color) -> np.ndarray:
  return _scale_about(image, factor, min(255, image.shape[0] * image.shape[1] // 256))


def brightness(image: np.ndarray, factor: float, fill: Color) -> np.ndarray:
  return _scale_about(image, factor, 0)


def sharpness(image: np.ndarray, factor: float, fill: Color) -> np.ndarray:
  smooth = cv2.filter2D(image, -1, _SMOOTH)
  for border in np.s_[:1], np.s_[-1:], np.s_[:, :1], np.s_[:, -1:]:
    smooth[border] = image[border]
  return _blend(smooth, image, factor)


def cutout(image: np.ndarray, argument: tuple[int, float, float], fill: Color) -> np.ndarray:
  """Fills a square; argument: half its side in pixels, and y and x of its center, in [0, 1) of the image's size."""
  half, *place = argument
  y, x = (int(part * side) for part, side in zip(place, image.shape[:2], strict=True))
  image = image.copy()
  image[max(0, y - half) : y + half, max(0, x - half) : x + half] = fill
  return image


def _rotation(degrees, width, height):
  """Counterclockwise about the center."""
  cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  x, y = width / 2, height / 2
  return [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]


# {name: function (argument, width, height) -> 2 x 3 matrix}. A matrix maps a pixel of the result to a point of the
# image: [x, y] = matrix @ [column, row, 1].
MATRICES = {
  "rotate": _rotation,
  "shear_x": lambda factor, width, height: [[1, factor, 0], [0, 1, 0]],
  "shear_y": lambda factor, width, height: [[1, 0, 0], [factor, 1, 0]],
  "shift_x": lambda part, width, height: [[1, 0, part * width], [0, 1, 0]],
  "shift_y": lambda part, width, height: [[1, 0, 0], [0, 1, part * height]],
  "shift_x_pixels": lambda pixels, width, height: [[1, 0, pixels], [0, 1, 0]],
  "shift_y_pixels": lambda pixels, width, height: [[1, 0, 0], [0, 1, pixels]],
}


def _warp(image, matrix, fill, interpolation):
  return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=interpolation | cv2.WARP_INVERSE_MAP, borderValue=fill)


def cubic(name: str) -> Callable[[np.ndarray, float, Color], np.ndarray]:
  """An operation in Pillow's coordinates, which start at the image's corner: OpenCV's pixel centers are at +0.5."""

  def apply(image, argument, fill):
    m = np.array(MATRICES[name](argument, image.shape[1], image.shape[0]), float)
    m[:, 2] += (m[:, 0] + m[:, 1] - 1) / 2
    return _warp(image, m, fill, cv2.INTER_CUBIC)

  return apply


def nearest(name: str) -> Callable[[np.ndarray, float, Color], np.ndarray]:
  """An operation in TensorFlow's coordinates, which start at the center of the first pixel, as OpenCV's do."""

  def apply(image, argument, fill):
    m = np.array(MATRICES[name](argument, image.shape[1] - 1, image.shape[0] - 1), float)
    return _warp(image, m, fill, cv2.INTER_NEAREST)

  return apply
