"""Transforms of an image together with its label map, as in mmsegmentation's pipelines; each is drawn, then applied.

Images are uint8 RGB [H, W, 3], label maps uint8 [H, W]. Sizes and shapes are (height, width). `config.data.scale` and
`config.augment` explain the options.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mlpvision.data.crops import Box

IGNORE = 255  # the label of pixels that neither the loss nor the scores count
_REDRAWS = 10  # of a crop

_VALUES = np.arange(256, dtype=np.float32)


def fit(shape: tuple[int, int], scale: Sequence[float], ratio: float = 1.0) -> tuple[int, int]:
  """The size of an image of `shape` that is resized to fit `scale` times `ratio`, keeping its aspect ratio.

  scale: the longest length of the longer and of the shorter side, in either order.
  """
  longer, shorter = int(max(scale) * ratio), int(min(scale) * ratio)
  factor = min(longer / max(shape), shorter / min(shape))
  return tuple(max(1, int(side * factor + 0.5)) for side in shape)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """OpenCV's bilinear interpolation, without antialiasing, as the originals have it."""
  return image if image.shape[:2] == tuple(size) else cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_map(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Nearest neighbor."""
  return labels if labels.shape == tuple(size) else cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)


def draw_crop(labels: np.ndarray, size: int, rng: np.random.Generator, *, cat_max_ratio: float) -> Box:
  """Samples a crop of size x size; smaller along a side of the map that is shorter.

  cat_max_ratio: a crop whose largest class has at least this share of its pixels with a label, or has the only class,
    is drawn again, up to ten times. 1 accepts every crop.
  """
  height, width = labels.shape
  for attempt in range(_REDRAWS + 1):
    y, x = (int(rng.integers(max(side - size, 0) + 1)) for side in (height, width))
    box = Box(y, x, min(size, height), min(size, width))
    if cat_max_ratio >= 1 or attempt == _REDRAWS:
      return box
    counts = histogram(crop(labels, box))[:IGNORE]
    if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio:
      return box
  raise AssertionError("the last attempt returns")


def crop(array: np.ndarray, box: Box) -> np.ndarray:
  """A view of the part of an image or a label map."""
  return array[box.y : box.y + box.height, box.x : box.x + box.width]


def histogram(labels: np.ndarray) -> np.ndarray:
  """float32 [256]: how many pixels of a label map have each value."""
  return cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()


def flip(array: np.ndarray) -> np.ndarray:
  """Mirrored horizontally."""
  return cv2.flip(array, 1)


class Distortion(NamedTuple):
  """A photometric distortion; None leaves a step out.

  Attributes:
    brightness: added.
    contrast: multiplies the values.
    contrast_first: whether the contrast changes before saturation and hue, or after them.
    saturation: multiplies the saturation.
    hue: added to the hue, in OpenCV's units of two degrees.
  """

  brightness: float | None
  contrast: float | None
  contrast_first: bool
  saturation: float | None
  hue: int | None


def draw_distortion(rng: np.random.Generator) -> Distortion:
  """Samples mmsegmentation's PhotoMetricDistortion: each step with a probability of 1/2."""

  def maybe(value):
    return value if rng.random() < 0.5 else None

  return Distortion(
    brightness=maybe(rng.uniform(-32, 32)),
    contrast=maybe(rng.uniform(0.5, 1.5)),
    contrast_first=bool(rng.random() < 0.5),
    saturation=maybe(rng.uniform(0.5, 1.5)),
    hue=maybe(int(rng.integers(-18, 18))),
  )


def distort(image: np.ndarray, distortion: Distortion) -> np.ndarray:
  """Applies a distortion; as in the original, values are clipped and truncated to uint8 after each step."""
  brightness, contrast, contrast_first, saturation, hue = distortion
  if brightness is not None:
    image = cv2.LUT(image, _table(1, brightness))
  if contrast is not None and contrast_first:
    image = cv2.LUT(image, _table(contrast, 0))
  if saturation is not None:
    image = _in_hsv(image, 1, _table(saturation, 0))
  if hue is not None:
    image = _in_hsv(image, 0, ((np.arange(256) + hue) % 180).astype(np.uint8))
  if contrast is not None and not contrast_first:
    image = cv2.LUT(image, _table(contrast, 0))
  return image


def _table(factor, addition):
  return np.clip(_VALUES * np.float32(factor) + np.float32(addition), 0, 255).astype(np.uint8)


def _in_hsv(image, channel, table):
  hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
  hsv[..., channel] = cv2.LUT(hsv[..., channel], table)
  return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def pad(image: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Pads both to size x size at the right and at the bottom: the image with 0, the map with IGNORE."""
  return canvas(image, (size, size)), canvas(labels, (size, size), IGNORE)


def canvas(array: np.ndarray, size: tuple[int, int], value: int = 0) -> np.ndarray:
  """A larger array that has `array` in its upper left corner and `value` elsewhere."""
  result = np.full((*size, *array.shape[2:]), value, array.dtype)
  result[: array.shape[0], : array.shape[1]] = array
  return result
