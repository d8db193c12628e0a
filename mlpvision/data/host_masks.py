"""Masks on the host: from an image into the frame of an object's box for training, and back for results.

Both interpolate along one axis after the other. Products of matrices, as on the device, would be slower here: the
threads of their library compete with the loader's.
"""

import math
from typing import NamedTuple

import numpy as np

THRESHOLD = 0.5  # `mask_thr_binary` of mmdetection


def crop(bitmap: np.ndarray, box: np.ndarray, size: int = 56) -> np.ndarray:
  """An object's mask in the frame of its own box, with soft borders: RoIAlign with the adaptive grid.

  bitmap: uint8 or bool [H, W] of ones and zeros; box: [4], (x1, y1, x2, y2) in pixels, inside the image -> uint8
  [size, size], 255 where the object covers all of a cell. An empty box gives zeros.
  """
  x1, y1, x2, y2 = (float(value) for value in box)
  rows, columns = _samples(y1, y2, bitmap.shape[0], size), _samples(x1, x2, bitmap.shape[1], size)
  if rows is None or columns is None:
    return np.zeros((size, size), np.uint8)
  part = bitmap[:, columns.low[0] : columns.high[-1] + 1]
  down = _means(part, rows, size)
  across = columns._replace(low=columns.low - columns.low[0], high=columns.high - columns.low[0])
  return np.rint(255 * _means(down.T, across, size).T).clip(0, 255).astype(np.uint8)


def paste(probabilities: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
  """A detection's mask in an image: mmdetection's `_do_paste_mask`, where the probability is at least one half.

  Args:
    probabilities: float [S, S], the mask head's map of the detection's class.
    box: [4], the detection (x1, y1, x2, y2) in pixels of the image; it may lie outside.
    height: of the image.
    width: of the image.

  Returns:
    bool [height, width]. An empty box gives an empty mask.
  """
  mask = np.zeros((height, width), bool)
  values, top, left = around_box(probabilities, box, height, width)
  mask[top : top + values.shape[0], left : left + values.shape[1]] = values >= THRESHOLD
  return mask


def around_box(probabilities: np.ndarray, box: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int, int]:
  """The probabilities of the pixels in a detection's box and up to one beyond; farther out they are below one half.

  Pixels take their value at their center, bilinearly; the map is zero outside (PyTorch's `grid_sample` with
  align_corners=False).

  Returns:
    (float32 [h, w], the first row's index in the image, the first column's), for the arguments of `paste`; h or w is
    zero outside the image and for an empty box.
  """
  x1, y1, x2, y2 = (float(value) for value in box)
  if x2 <= x1 or y2 <= y1:
    return np.zeros((0, 0), np.float32), 0, 0
  rows, top = _cells(y1, y2, height, probabilities.shape[0])
  columns, left = _cells(x1, x2, width, probabilities.shape[1])
  down = _interpolated(np.asarray(probabilities, np.float32), rows)
  return _interpolated(np.ascontiguousarray(down.T), columns).T, top, left


class _Samples(NamedTuple):
  """Samples along an axis: the indices of two neighbors each, and their weights, [n, 1]."""

  low: np.ndarray
  high: np.ndarray
  of_low: np.ndarray
  of_high: np.ndarray


def _samples(start, end, size, bins):
  """Those of a box's bins along an axis of `size` pixels, the same number in each; None for an empty box.

  The weights are those in the mean over a bin.
  """
  start, end = start - 0.5, end - 0.5  # pixel i has its center at i
  count = math.ceil((end - start) / bins)
  if count < 1:
    return None
  position = start + (np.arange(bins * count) + 0.5) * ((end - start) / (bins * count))
  inside = (position >= -1) & (position <= size)
  position = position.clip(0, size - 1)
  low = position.astype(int)
  weights = (inside * (low + 1 - position) / count, inside * (position - low) / count)
  return _Samples(low, np.minimum(low + 1, size - 1), *(np.float32(weight[:, None]) for weight in weights))


def _means(values, samples, bins):
  """The mean of the rows of `values`, [n, m], in each bin: float32 [bins, m]."""
  return _interpolated(values, samples).reshape(bins, -1, values.shape[1]).sum(1)


def _cells(start, end, size, cells):
  """The two cells of a map around each pixel of an axis in a box, and the first of these pixels.

  The weights are those of the values, zero outside the map.
  """
  first, last = (min(max(edge, 0), size) for edge in (math.floor(start) - 1, math.ceil(end) + 1))
  position = (np.arange(first, last) + 0.5 - start) / (end - start) * cells - 0.5
  position = position.clip(-2, cells + 1)  # where all is zero, as beyond
  low = np.floor(position).astype(int)
  share = position - low
  weights = (np.where((i >= 0) & (i < cells), w, 0) for i, w in ((low, 1 - share), (low + 1, share)))
  clipped = (i.clip(0, cells - 1) for i in (low, low + 1))
  return _Samples(*clipped, *(np.float32(weight[:, None]) for weight in weights)), first


def _interpolated(values, samples):
  """The rows of `values`, [n, m], at the samples: float32 [samples, m]."""
  return values[samples.low] * samples.of_low + values[samples.high] * samples.of_high
