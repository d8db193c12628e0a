"""Rows of batches of detection; see `rows.Rows` for what the methods do."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from mlpvision.data import (
  dense_transforms as dense,
  detection_transforms as scenes,
  host_masks,
  objects,
  rle,
  transforms,
)
from mlpvision.errors import UserError

MASK_SIDE = 56  # of an object's mask in the frame of its box


class Detection:
  """Rows with boxes in pixels of a canvas, in whose top left corner the image is. Sizes are int32 (height, width).

  Training: {"image": uint8 [H, W, 3], "size": int32 [2], "boxes": float32 [M, 4] of x1, y1, x2, y2, "labels": int32
  [M]}, and with masks "masks": uint8 [M, 56, 56], each object's mask in the frame of its box (`host_masks.crop`). M is
  config.data.max_objects; free slots have the label -1. A row may have no object, if a crop has lost all of them.

  Evaluation: {"image": uint8 [H, W, 3], "size": int32 [2], "original": int32 [2], the image's own size, "index": int32
  [], of the example}.

  The canvas (H, W) is (shorter, longer) side of config.data.canvas for images that are wider than high, and (longer,
  shorter) for all others. A training batch has images of one kind (`order.OrientedOrder`).
  """

  fields = ("image", "boxes", "labels")
  randaugment = None

  def __init__(self, config: ml_collections.ConfigDict) -> None:
    self.config = config
    self.masks = config.model.get("masks", True)

  def train(self, example: Mapping[str, Any], rng: np.random.Generator, split: Any) -> dict[str, np.ndarray]:
    """A row of a training batch; `rng` is the only source of randomness."""
    del split
    augment, data = self.config.augment, self.config.data
    scene = self._scene(example)
    canvas = scenes.canvas(scene.image.shape, data.canvas)
    if rng.random() < augment.flip:
      scene = scenes.flip(scene)
    if rng.random() < augment.crop_probability:
      scene = scenes.resize(scene, self._drawn(scene, augment.crop_short_sides, rng))
      box = scenes.draw_crop(scene.image.shape[:2], augment.crop_sides, canvas, rng)
      scene = scenes.crop(scene, box)
    scene = scenes.resize(scene, self._drawn(scene, augment.short_sides, rng))
    return self._row(scenes.with_area(scene), canvas)

  def evaluation(self, example: Mapping[str, Any], split: Any) -> dict[str, np.ndarray]:
    """A row of an evaluation batch."""
    del split
    return unlabeled(_decoded(example), self.config, example["index"])

  def groups(self, split: Any) -> list[tuple[Sequence[int], dict[str, np.ndarray]]]:
    """One group for each orientation of the canvas, the larger group first."""
    wide = is_wide(split.source.sizes, self.config.data.canvas)
    found = [np.flatnonzero(wide == value) for value in (True, False)]
    blank = [_on_canvas(np.zeros((h, w, 3), np.uint8), (h, w), (h, w), 0) for h, w in _canvases(self.config)]
    groups = [(indices, row) for indices, row in zip(found, blank, strict=True) if len(indices)]
    return sorted(groups, key=lambda group: -len(group[0]))

  def _drawn(self, scene, short_sides, rng):
    """The size of a scene whose shorter side is drawn, and its longer side limited."""
    short = int(short_sides[int(rng.integers(len(short_sides)))])
    return dense.fit(scene.image.shape[:2], (max(self.config.data.scale), short))

  def _scene(self, example):
    chosen = np.flatnonzero(objects.usable(example))
    masks = [rle.decode(example["masks"][i]) for i in chosen] if self.masks else None
    labels = example["labels"][chosen].astype(np.int32)
    return scenes.Scene(_decoded(example), example["boxes"][chosen], labels, masks)

  def _row(self, scene, canvas):
    count = self.config.data.max_objects
    kept = min(count, len(scene.labels))
    row = {
      "image": dense.canvas(scene.image, canvas),
      "size": np.int32(scene.image.shape[:2]),
      "boxes": np.zeros((count, 4), np.float32),
      "labels": np.full(count, -1, np.int32),
    }
    row["boxes"][:kept], row["labels"][:kept] = scene.boxes[:kept], scene.labels[:kept]
    if self.masks:
      row["masks"] = np.zeros((count, MASK_SIDE, MASK_SIDE), np.uint8)
      for i in range(kept):
        row["masks"][i] = host_masks.crop(scene.masks[i], scene.boxes[i], MASK_SIDE)
    return row


def is_wide(sizes: np.ndarray, canvas: Sequence[int]) -> np.ndarray:
  """bool [n]: which images of these sizes, [n, 2] (height, width), take the wide canvas; none if it is square."""
  return (sizes[:, 1] > sizes[:, 0]) & (canvas[0] != canvas[1])


def unlabeled(image: np.ndarray, config: ml_collections.ConfigDict, index: int = 0) -> dict[str, np.ndarray]:
  """A row of the evaluation of detection, of an image uint8 [H, W, 3]. config: data.scale and data.canvas."""
  size = dense.fit(image.shape[:2], config.data.scale)
  canvas = scenes.canvas(image.shape, config.data.canvas)
  return _on_canvas(dense.resize(image, size), canvas, image.shape[:2], index)


def _on_canvas(image, canvas, original, index):
  return {
    "image": dense.canvas(image, canvas),
    "size": np.int32(image.shape[:2]),
    "original": np.int32(original),
    "index": np.int32(index),
  }


def _canvases(config):
  """(the wide canvas, the high one)."""
  shorter, longer = sorted(map(int, config.data.canvas))
  return (shorter, longer), (longer, shorter)


def _decoded(example):
  image = transforms.decode(example["image"])
  if image.shape[:2] != tuple(example["size"]):
    (height, width), (stated_height, stated_width) = image.shape[:2], example["size"]
    raise UserError(
      f"it has {width} x {height} pixels, upright, but {stated_width} x {stated_height} in the annotations"
    )
  return image
