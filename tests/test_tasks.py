"""Tasks by name; tests/test_segmentation.py takes one that is not classification through everything that runs have."""

import pytest

from mlpvision import tasks
from mlpvision.data import rows
from mlpvision.errors import UserError
from mlpvision.training import loop


def test_tasks_have_both_halves_and_an_unknown_one_is_refused(small_config, tmp_path):
  assert tasks.TASKS.keys() == rows.ROWS.keys()
  small_config.task = "detect"
  with pytest.raises(UserError, match="task='detect'.*classification"):
    loop.train_and_evaluate(small_config, tmp_path)


def test_a_batch_of_the_loader_is_as_the_task_says(small_config, data_dir):
  from mlpvision.data import datasets, loader

  split = datasets.open_split("mnist5k", "train[:100]", str(data_dir))
  batch = next(loader.train_batches(split, small_config, start_step=0))
  spec = tasks.batch_specs(small_config)[0]
  assert {key: (x.shape[1:], x.dtype) for key, x in batch.items()} == spec
  random = tasks.random_batch(small_config, 10)
  assert {key: (x.shape, x.dtype) for key, x in random.items()} == {key: (x.shape, x.dtype) for key, x in batch.items()}
