"""How many images and classes a config trains on, without its dataset."""

import os

import ml_collections

from mlpvision.data import datasets, folder
from mlpvision.errors import UserError

_HELD_OUT = 51_200  # of ImageNet-21K, on average: see mlpvision.prepare.builders.imagenet21k
# Name -> ({split: images}, classes). ImageNet: arXiv 1409.0575, Table 2. ImageNet-21K: image-net.org's 14,197,122
# images of 21,841 classes; 21K-P of winter21: github.com/Alibaba-MIIL/ImageNet21K, processing_instructions.md.
_SIZES = {
  "imagenet2012": ({"train": 1_281_167, "validation": 50_000}, 1000),
  "imagenet21k/fall11": ({"train": 14_197_122 - _HELD_OUT, "validation": _HELD_OUT}, 21_841),
  "imagenet21k/p": ({"train": 11_060_223, "validation": 522_500}, 10_450),
  "mnist5k": ({"train": 4000, "test": 1000}, 10),
}


def count(data: ml_collections.ConfigDict, *, images: int | None = None, classes: int | None = None) -> tuple[int, int]:
  """(training images, classes) of config.data.

  Args:
    data: config.data.
    images, classes: what the user says, which decides; None: look it up.

  Raises:
    UserError: neither known nor prepared, or no such split.
  """
  if images and classes:
    return images, classes
  if data.name in _SIZES:
    found, num_classes = _SIZES[data.name]
    return images or _sliced(data.name, found, data.train_split), classes or num_classes
  if data.name.startswith(folder.PREFIX) or _is_prepared(data):
    split = datasets.open_split(data.name, data.train_split, data.data_dir)
    return images or len(split), classes or len(split.class_names)
  raise UserError(
    f"the size of {data.name} is not known, and it is not in {datasets.resolve_data_dir(data.data_dir)}:"
    " add --images=N --classes=N"
  )


def _is_prepared(data):
  return datasets.find_prepared(data.name, datasets.resolve_data_dir(data.data_dir)) is not None


def _sliced(name, sizes, split):
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  from tensorflow_datasets.core import naming, splits

  def info(key):  # tfds wants to know what the files would be called
    template = naming.ShardedFileTemplate(dataset_name="x", data_dir="x", split=key, filetype_suffix="array_record")
    return splits.SplitInfo(name=key, shard_lengths=[sizes[key]], num_bytes=0, filename_template=template)

  try:
    return splits.SplitDict([info(key) for key in sizes])[split].num_examples
  except (KeyError, ValueError) as error:
    raise UserError(f"data.train_split={split!r}: {error}") from error
