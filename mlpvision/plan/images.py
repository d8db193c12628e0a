"""How many images and classes a config trains on, without its dataset."""

import os

import ml_collections

from mlpvision.data import datasets, folder
from mlpvision.errors import UserError
from mlpvision.prepare import archives

_MNIST5K = {"train": 4000, "test": 1000}


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
  release = archives.find(data.name)
  if data.name == "mnist5k" or (release and release.splits):
    splits, num_classes = (release.splits, release.classes) if release else (_MNIST5K, 10)
    return images or _sliced(splits, data.train_split), classes or num_classes
  if data.name.startswith(folder.PREFIX) or _is_prepared(data):
    split = datasets.open_split(data.name, data.train_split, data.data_dir)
    return images or len(split), classes or len(split.class_names)
  raise UserError(
    f"the size of {data.name} is not known, and it is not in {datasets.resolve_data_dir(data.data_dir)}:"
    " add --images=N --classes=N"
  )


def _is_prepared(data):
  return datasets.find_prepared(data.name, datasets.resolve_data_dir(data.data_dir)) is not None


def _sliced(sizes, split):
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  from tensorflow_datasets.core import naming, splits

  def info(key):  # tfds wants to know what the files would be called
    template = naming.ShardedFileTemplate(dataset_name="x", data_dir="x", split=key, filetype_suffix="array_record")
    return splits.SplitInfo(name=key, shard_lengths=[sizes[key]], num_bytes=0, filename_template=template)

  try:
    return splits.SplitDict([info(key) for key in sizes])[split].num_examples
  except (KeyError, ValueError) as error:
    raise UserError(f"data.train_split={split!r}: {error}") from error
