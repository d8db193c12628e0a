"""The loaders that `mlpvision.benchmark data --peers` compares ours with."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import tempfile
from typing import Any

import ml_collections

from benchmarks import pillow, tfdata
from mlpvision.errors import UserError

_FILES = 1000  # images of the dataset that the loaders get as files, and read over and over


@contextlib.contextmanager
def make(config: ml_collections.ConfigDict, split: Any, processes: int) -> Iterator[dict[str, tuple[Any, ...]]]:
  """{name: (function that yields batches, its arguments...)}; inside, their files exist.

  Args:
    config: the whole config.
    split: a `datasets.Split`.
    processes: how many Pillow gets.

  Raises:
    UserError: the config has another crop, or the split has no JPEGs.
  """
  if config.augment.crop != "random_resized":
    raise UserError(f"--peers: the other loaders support only 'random_resized', not {config.augment.crop!r}")
  with tempfile.TemporaryDirectory() as directory:
    paths = []
    for i in range(min(_FILES, len(split))):
      data = split.source[i]["image"]
      if data.startswith(b"\xff\xd8"):  # tf.data's fused decoding takes nothing but JPEGs
        paths.append(os.path.join(directory, f"{i}.jpg"))
        pathlib.Path(paths[-1]).write_bytes(data)
    if not paths:
      raise UserError(f"{split.name} has no JPEGs, which --peers needs")
    yield {
      f"Pillow, {processes} processes": (pillow.batches, config.to_dict(), paths, processes),
      "tf.data, no RandAugment": (tfdata.batches, config.to_dict(), paths),
    }
