"""The host half of a task: turns an example of a dataset into a row of a batch, without JAX.

A row is a dict of arrays with fixed shapes, see `tasks.batch_spec`; lists are padded.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from mlpvision.data import crops, randaugment, transforms


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


class Classification(Rows):
  """{"image": uint8 [size, size, 3], "label": int32 []}; labels are bool [K] in multi-label evaluation."""

  def train(self, example: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
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


ROWS = {"classification": Classification}


def of(config: ml_collections.ConfigDict) -> Rows:
  """The rows of config.task."""
  return ROWS[config.get("task", "classification")](config)
