"""A loss or gradient that is not finite: the run ends there and names it, or leaves the step out."""

import json

import jax
import numpy as np
import pytest

from mlpvision import sharding, tasks
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError
from mlpvision.training import loop, setup as setup_lib, step as step_lib
from mlpvision.training.health import Health


def _batch(config, colour):
  batch = tasks.random_batch(config, 10)
  return {**batch, "image": np.full_like(batch["image"], colour)}


def test_skip_changes_nothing_and_goes_on_until_ten_in_a_row(small_config, tmp_path):
  """With a tiny std, white pixels overflow float32 and black ones do not."""
  small_config.optim.nonfinite = "skip"
  small_config.data.update(mean=(0.0,) * 3, std=(1e-37,) * 3)
  setup = setup_lib.set_up(small_config)
  state = step_lib.create_state(setup.init, setup.abstract, 0)
  step, _ = setup_lib.compile_step(setup)
  history = []
  for colour in (0, 255, 0):
    state, metrics = step(state, sharding.put_batch(_batch(small_config, colour), setup.mesh))
    history.append((jax.device_get(state.params), bool(metrics["finite"])))
  assert [finite for _, finite in history] == [True, False, True]
  jax.tree.map(np.testing.assert_array_equal, history[0][0], history[1][0])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(history[2][0]))
  assert int(state.step) == 3

  health = Health("skip", workdir=tmp_path, image_indices=lambda step: np.arange(3), last_checkpoint=lambda: None)
  for number, colour in enumerate([255] * 9 + [0] + [255] * 10, start=1):
    state, metrics = step(state, sharding.put_batch(_batch(small_config, colour), setup.mesh))
    health.watch(number, metrics)  # checks the step before
  with pytest.raises(UserError, match=r"(?s)at step 20, the 10th such step in a row.*No checkpoint was saved before"):
    health.settle()


def test_the_run_ends_there_and_names_step_images_and_checkpoint(small_config, tmp_path):
  small_config.optim.update(learning_rate=1e38, clip_norm=0.0)
  small_config.optim.schedule.warmup = "0 steps"
  small_config.checkpoint.every, small_config.duration = "1 steps", "6 steps"
  with pytest.raises(UserError, match=r"(?s)loss is nan.*at step 2\..*nonfinite\.json.*checkpoint is of step 1"):
    loop.train_and_evaluate(small_config, str(tmp_path))
  assert sorted(p.name for p in (tmp_path / "checkpoints").glob("[0-9]*")) == ["1"]
  found = json.loads((tmp_path / "nonfinite.json").read_text())
  split = datasets.open_split("mnist5k", "train", None)
  labels = next(loader.train_batches(split, small_config, start_step=1))["label"]
  assert found["step"] == 2
  assert [split.source[i]["label"] for i in found["images"]] == labels.tolist()
