"""A synthetic dataset with ImageNet's image sizes: JPEGs of 500 x 375 pixels and about 110 KB."""

import contextlib
import importlib.util
import io
import os
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

_SIZE = (500, 375)
_BYTES = 105_000
_DISTINCT = 256


class Builder(tfds.core.GeneratorBasedBuilder):
  """Crops of scikit-learn's two photographs (1/f noise if it is not installed), repeated as often as needed."""

  name = "imagenet_shaped"
  VERSION = tfds.core.Version("1.0.0")

  def __init__(self, *, num_images: int, **options: Any) -> None:
    self._num_images = num_images
    super().__init__(**options)

  def _info(self):
    features = {
      "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
      "label": tfds.features.ClassLabel(num_classes=1000),
    }
    return tfds.core.DatasetInfo(
      builder=self, description=__doc__, features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    images = make_images(min(self._num_images, _DISTINCT))
    for i in range(self._num_images):
      yield i, {"image": io.BytesIO(images[i % len(images)]), "label": i % 1000}


def prepare(data_dir: str | os.PathLike, num_images: int) -> str:
  """Prepares the dataset in data_dir as array_record; returns its directory, for config.data.name."""
  tfds.disable_progress_bar()
  builder = Builder(num_images=num_images, data_dir=data_dir, file_format="array_record")
  with contextlib.redirect_stdout(None):
    builder.download_and_prepare()
  return os.fspath(builder.data_path)


def make_images(count: int, seed: int = 0) -> list[bytes]:
  """Returns count encoded JPEGs, which depend on the seed alone."""
  rng, sources = np.random.default_rng(seed), _sources()
  images = []
  for i in range(count):
    source = sources[i % len(sources)]
    width = rng.uniform(0.6, 0.85) * source.width
    height = width * _SIZE[1] / _SIZE[0]
    x, y = rng.uniform(0, source.width - width), rng.uniform(0, source.height - height)
    picture = source.resize(_SIZE, Image.Resampling.BICUBIC, (x, y, x + width, y + height))
    # Sensor noise; without it, an enlarged photograph compresses too well.
    picture = np.asarray(picture) + rng.normal(0, 4, (_SIZE[1], _SIZE[0], 1))
    images.append(_encode(Image.fromarray(picture.clip(0, 255).astype(np.uint8))))
  return images


def _encode(image):
  for quality in (85, 90, 93, 95, 97, 98):
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality, subsampling=2)
    if file.tell() > _BYTES:
      break
  return file.getvalue()


def _sources():
  if importlib.util.find_spec("sklearn"):
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]
  rng = np.random.default_rng(1)
  frequency = np.hypot(np.fft.fftfreq(480)[:, None], np.fft.fftfreq(640)[None])
  frequency[0, 0] = 1
  pictures = []
  for _ in range(2):
    spectrum = np.fft.fft2(rng.normal(size=(3, 480, 640))) / frequency
    noise = np.fft.ifft2(spectrum).real.transpose(1, 2, 0)
    scaled = 128 + 60 * (noise - noise.mean()) / noise.std()
    pictures.append(Image.fromarray(scaled.clip(0, 255).astype(np.uint8)))
  return pictures
