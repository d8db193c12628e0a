"""The host half of a task: turns an example of a dataset into a row of a batch, without JAX.

A row is a dict of arrays with fixed shapes, see `tasks.batch_spec`; lists are padded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from mlpvision.data import (
  canvases,
  crops,
  dense_transforms as dense,
  detection_rows,
  label_maps,
  randaugment,
  transforms,
)


class Rows:
  """Base class: turns an image into the model's input."""

  fields: tuple[str, ...] = ("image", "label")  # of the dataset's examples

  def __init__(self, config: ml_collections.ConfigDict) -> None:
    self.config = config
    spec = config.augment.randaugment if "augment" in config else ""
    fill = tuple(round(255 * mean) for mean in config.data.mean)
    self.randaugment = randaugment.parse(spec, fill=fill) if spec else None

  def draw_crop(self, data: bytes, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """(training image uint8 [size, size, 3], crop); the crop is a `crops.Box` or `crops.Affine`, None if central."""
    augment, size = self.config.augment, self.config.data.image_size
    if augment.crop == "center":
      return self.preprocess(transforms.open_image(data)), None
    if augment.crop == "random_resized":
      image, shape = crops.with_shape(data)
      box = crops.draw_box(shape, rng, scale=augment.crop_scale, ratio=augment.crop_ratio)
      return crops.cut(image, box, size), box
    image = transforms.decode(data)
    affine = crops.draw_affine(rng, rotation=augment.rotation, zoom=augment.zoom, shift=augment.shift)
    return crops.warp(image, affine, size), affine

  def preprocess(self, image: Image.Image) -> np.ndarray:
    """The center crop of evaluation: PIL image -> uint8 [size, size, 3]."""
    view = self.config.eval
    options = dict(crop_ratio=view.crop_ratio, interpolation=view.interpolation)
    return crops.center_crop(image, self.config.data.image_size, **options)

  def groups(self, split: Any) -> list[tuple[Sequence[int], dict[str, np.ndarray]]]:
    """[(indices of examples, a blank row), ...]: rows of a group have the same shapes in evaluation.

    A blank row pads the group's last batch. By default, there is one group, in the split's order.
    """
    return [(range(len(split)), self.blank(split))]


class Classification(Rows):
  """{"image": uint8 [size, size, 3], "label": int32 []}; labels are bool [K] in multi-label evaluation."""

  def train(self, example: Mapping[str, Any], rng: np.random.Generator, split: Any) -> dict[str, np.ndarray]:
    """A row of a training batch; `rng` is the only source of randomness."""
    image, _ = self.draw_crop(example["image"], rng)
    if self.randaugment is not None:
      image = self.randaugment(image, rng)
    return {"image": image, "label": np.int32(example["label"])}

  def evaluation(self, example: Mapping[str, Any], split: Any) -> dict[str, np.ndarray] | None:
    """A row of an evaluation batch, or None if the example has no label."""
    labels = np.atleast_1d(example["label"])
    labels = labels[labels >= 0]  # tfds sets secret labels of test images to -1
    if not labels.size:
      return None
    label = np.int32(labels[0])
    if split.multi_label:
      label = np.zeros(len(split.class_names), np.bool_)
      label[labels] = True
    return {"image": self.preprocess(transforms.open_image(example["image"])), "label": label}

  def blank(self, split: Any) -> dict[str, np.ndarray]:
    """A row that pads the last batch of an evaluation."""
    size = self.config.data.image_size
    label = np.zeros(len(split.class_names), np.bool_) if split.multi_label else np.int32(0)
    return {"image": np.zeros((size, size, 3), np.uint8), "label": label}


class Segmentation(Rows):
  """Rows with an index per pixel; 255 where there is none. Sizes are int32 (height, width).

  Training: {"image": uint8 [size, size, 3], "label": uint8 [size, size], "size": int32 [2]}. Beyond "size", which is
  smaller than the crop if the image is, the image is 0 and the label 255.

  Evaluation: {"images": a uint8 [H, W, 3] for each of config.eval.scales, "sizes": an int32 [2] for each, "label":
  uint8 [H, W], "label_size": int32 [2]}. Images and label are in the upper left corner of a canvas, whose sides
  `canvases.side` rounds up; the label has the size of the file, as the scores need it.
  """

  fields = ("image", "segmentation")

  def train(self, example: Mapping[str, Any], rng: np.random.Generator, split: Any) -> dict[str, np.ndarray]:
    """A row of a training batch; `rng` is the only source of randomness."""
    augment, size = self.config.augment, self.config.data.image_size
    image, labels = self._decoded(example, split)
    shape = dense.fit(labels.shape, self.config.data.scale, rng.uniform(*augment.resize_ratio))
    image, labels = dense.resize(image, shape), dense.resize_map(labels, shape)
    box = dense.draw_crop(labels, size, rng, cat_max_ratio=augment.cat_max_ratio)
    image, labels = dense.crop(image, box), dense.crop(labels, box)
    if rng.random() < augment.flip:
      image, labels = dense.flip(image), dense.flip(labels)
    if augment.photometric:
      image = dense.distort(image, dense.draw_distortion(rng))
    image, labels = dense.pad(image, labels, size)
    return {"image": image, "label": labels, "size": np.int32([box.height, box.width])}

  def evaluation(self, example: Mapping[str, Any], split: Any) -> dict[str, np.ndarray]:
    """A row of an evaluation batch."""
    image, labels = self._decoded(example, split)
    return {**unlabeled(image, self.config), "label": dense.canvas(labels, canvases.shape(labels.shape), dense.IGNORE)}

  def groups(self, split: Any) -> list[tuple[Sequence[int], dict[str, np.ndarray]]]:
    """One group for each combination of canvases; the largest first, so that too little memory is noticed at once."""
    indices = {}
    for index, size in enumerate(split.source.sizes.tolist()):
      shapes = tuple(map(canvases.shape, (*_sizes(size, self.config), size)))
      indices.setdefault(shapes, []).append(index)
    ordered = sorted(indices, key=lambda shapes: (-sum(height * width for height, width in shapes), shapes))
    return [(np.array(indices[shapes]), _blank(*shapes)) for shapes in ordered]

  def _decoded(self, example, split):
    image, labels = transforms.decode(example["image"]), label_maps.decode(example["segmentation"])
    label_maps.check_size(labels.shape, image.shape[:2])
    reduce_zero = self.config.data.reduce_zero_label
    return image, label_maps.indices(labels, len(split.class_names), reduce_zero=reduce_zero)


def unlabeled(image: np.ndarray, config: ml_collections.ConfigDict) -> dict[str, Any]:
  """A row of the evaluation of segmentation without labels, of an image uint8 [H, W, 3].

  config: data.scale and eval.scales, if there is one.
  """
  shape = image.shape[:2]
  sizes = _sizes(shape, config)
  return {
    "images": tuple(dense.canvas(dense.resize(image, size), canvases.shape(size)) for size in sizes),
    "sizes": tuple(map(np.int32, sizes)),
    "label": np.full(canvases.shape(shape), dense.IGNORE, np.uint8),
    "label_size": np.int32(shape),
  }


def _sizes(shape, config):
  """Those of an image of this shape at each ratio."""
  shape = [max(1, side) for side in shape]  # 0: a damaged image, which will raise an error
  return [dense.fit(shape, config.data.scale, ratio) for ratio in config.eval.get("scales", (1.0,))]


def _blank(*shapes):
  """A row of segmentation on canvases of these shapes, the label's last; all is valid, and no pixel has a label."""
  *shapes, label = shapes
  return {
    "images": tuple(np.zeros((*shape, 3), np.uint8) for shape in shapes),
    "sizes": tuple(map(np.int32, shapes)),
    "label": np.full(label, dense.IGNORE, np.uint8),
    "label_size": np.int32(label),
  }


ROWS = {"classification": Classification, "segmentation": Segmentation, "detection": detection_rows.Detection}


def of(config: ml_collections.ConfigDict) -> Rows:
  """The rows of config.task."""
  return ROWS[config.get("task", "classification")](config)
