"""Transforms of an image together with its objects, as in mmdetection's pipelines; each is drawn, then applied.

Images are uint8 RGB [H, W, 3], masks uint8 [H, W] of ones and zeros, boxes float32 [n, 4] of x1, y1, x2, y2 in pixels.
Sizes and shapes are (height, width).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlpvision.data import dense_transforms as dense
from mlpvision.data.crops import Box


class Scene(NamedTuple):
  """An image and its objects.

  Attributes:
    image: uint8 [H, W, 3].
    boxes: float32 [n, 4].
    labels: int32 [n].
    masks: n masks uint8 [H, W], or None.
  """

  image: np.ndarray
  boxes: np.ndarray
  labels: np.ndarray
  masks: list[np.ndarray] | None


def canvas(shape: Sequence[int], sides: Sequence[int]) -> tuple[int, int]:
  """The canvas for an image of this shape: the longer of two `sides` is its width if the image is wider than high."""
  shorter, longer = sorted(map(int, sides))
  return (shorter, longer) if shape[1] > shape[0] else (longer, shorter)


def flip(scene: Scene) -> Scene:
  """Mirrored horizontally."""
  x1, y1, x2, y2 = scene.boxes.T
  width = scene.image.shape[1]
  boxes = np.stack([width - x2, y1, width - x1, y2], 1)
  return scene._replace(image=dense.flip(scene.image), boxes=boxes, masks=_map(dense.flip, scene.masks))


def resize(scene: Scene, size: tuple[int, int]) -> Scene:
  """Bilinear for the image, nearest neighbor for masks; boxes are cut at the image's border."""
  height, width = scene.image.shape[:2]
  factors = np.float32([size[1] / width, size[0] / height] * 2)
  boxes = _clipped(scene.boxes * factors, size)
  masks = _map(lambda mask: dense.resize_map(mask, size), scene.masks)
  return scene._replace(image=dense.resize(scene.image, size), boxes=boxes, masks=masks)


def draw_crop(shape: tuple[int, int], sides: Sequence[int], canvas: Sequence[int], rng: np.random.Generator) -> Box:
  """Samples a crop whose height and width are integers in [min(low, side), min(high, side)], at a uniform place.

  sides: (low, high); canvas: (height, width) of the batch. A crop may have no object.

  One deviation from the original, whose batches take any shape: here a batch has one canvas, with the orientation of
  its images, so a crop of the other orientation swaps its height and width. The image always has room for it.
  """
  low, high = sides
  height, width = (int(rng.integers(min(low, side), min(high, side) + 1)) for side in shape)
  if (canvas[1] > canvas[0] and height > width) or (canvas[0] > canvas[1] and width > height):
    height, width = width, height
  y, x = (int(rng.integers(side - length + 1)) for side, length in zip(shape, (height, width), strict=True))
  return Box(y, x, height, width)


def crop(scene: Scene, box: Box) -> Scene:
  """The part in `box`. Objects without area in it are dropped; boxes are cut, not fitted to what is left of a mask."""
  boxes = _clipped(scene.boxes - np.float32([box.x, box.y] * 2), (box.height, box.width))
  scene = scene._replace(image=dense.crop(scene.image, box), boxes=boxes)
  return with_area(scene._replace(masks=_map(lambda mask: dense.crop(mask, box), scene.masks)))


def with_area(scene: Scene) -> Scene:
  """Without the objects whose box has no area."""
  keep = (scene.boxes[:, 2] > scene.boxes[:, 0]) & (scene.boxes[:, 3] > scene.boxes[:, 1])
  masks = None if scene.masks is None else [mask for mask, kept in zip(scene.masks, keep, strict=True) if kept]
  return scene._replace(boxes=scene.boxes[keep], labels=scene.labels[keep], masks=masks)


def _clipped(boxes, size):
  return boxes.clip(0, np.float32([size[1], size[0]] * 2))


def _map(function, masks):
  return None if masks is None else [function(mask) for mask in masks]
