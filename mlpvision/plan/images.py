"""How many images and classes a config trains on; the dataset is needed only if its sizes are not known."""

import os

import ml_collections

from mlpvision.data import coco_folder, datasets, directories, hf_datasets, prepared
from mlpvision.errors import UserError
from mlpvision.prepare import archives

# Datasets that prepare themselves.
_OWN = {
  "mnist5k": archives.Release((), "", 10, {"train": 4000, "test": 1000}),
  "digit_scenes": archives.Release((), "", 11, {"train": 4000, "test": 500}),
}


def count(
  config: ml_collections.ConfigDict, *, images: int | None = None, classes: int | None = None
) -> tuple[int, int]:
  """(training images, classes) of config.data.

  Args:
    config: task and data are read.
    images, classes: the user's figures, which take precedence; None: look them up.

  Raises:
    UserError: neither known nor prepared, or no such split.
  """
  if images and classes:
    return images, classes
  data = config.data
  release = _OWN.get(data.name) or archives.find(data.name)
  if release and release.splits:
    return images or _sliced(release.splits, data.train_split), classes or release.classes
  data_dir = prepared.resolve_data_dir(data.data_dir)
  if (
    not data.name.startswith((directories.PREFIX, coco_folder.PREFIX))
    and not hf_datasets.is_local(data.name)
    and prepared.find(data.name, data_dir) is None
  ):
    raise UserError(f"the size of {data.name} is not known, and it is not in {data_dir}: add --images=N --classes=N")
  split = datasets.of(config, data.train_split, training=True)
  return images or len(split), classes or len(split.class_names)


def _sliced(sizes, split):
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  from tensorflow_datasets.core import naming, splits

  def info(key):  # tfds requires a template for file names
    template = naming.ShardedFileTemplate(dataset_name="x", data_dir="x", split=key, filetype_suffix="array_record")
    return splits.SplitInfo(name=key, shard_lengths=[sizes[key]], num_bytes=0, filename_template=template)

  try:
    return splits.SplitDict([info(key) for key in sizes])[split].num_examples
  except (KeyError, ValueError) as error:
    raise UserError(f"data.train_split={split!r}: {error}") from error
