"""This project's loader, as a contestant."""

from collections.abc import Iterator, Mapping
import contextlib
from typing import Any

import ml_collections
import numpy as np

from mlpvision.data import datasets, loader


def batches(config: Mapping[str, Any]) -> Iterator[np.ndarray]:
  """Training batches of a config, given as a dict; flipped on the host, which training leaves to the device."""
  config = ml_collections.ConfigDict(config)
  split = datasets.open_split(config.data.name, config.data.train_split, config.data.data_dir)
  rng = np.random.default_rng(0)
  with contextlib.closing(loader.train_batches(split, config, start_step=0)) as source:
    for batch in source:
      images = batch["image"]
      flipped = rng.random(len(images)) < config.augment.flip
      images[flipped] = images[flipped, :, ::-1]
      yield images
