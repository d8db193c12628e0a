"""Detection from end to end: two canvases, training, resumption, meshes, accumulation, scores, prediction."""

import json
import shutil

import detectors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import sharding, tasks
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError
from mlpvision.evaluate import run as run_lib
from mlpvision.tasks import detection
from mlpvision.training import loop, setup as setup_lib, step as step_lib


@pytest.mark.slow
def test_a_run_is_scored_by_cocos_figures(detection_run):
  config, workdir, result = detection_run
  expected = {f"val/{name}" for name in detection.metrics(config)}
  assert len(expected) == 24
  assert expected <= result.metrics.keys()
  found = run_lib.evaluate(workdir)
  assert all(
    np.isclose(found[name], result.metrics[f"val/{name}"], equal_nan=True) for name in detection.metrics(config)
  )


@pytest.mark.slow
def test_steps_have_both_canvases_and_are_resumed_bit_for_bit(detection_run, tmp_path):
  config, workdir, whole = detection_run
  split = datasets.of(config, "train")
  canvases = [loader.canvas_of_step(split, config, step) for step in range(4)]
  assert set(canvases) == {(64, 96), (96, 64)}
  shutil.copytree(workdir, tmp_path / "resumed")
  for step in (2, 3, 4):
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / str(step))
  resumed = loop.train_and_evaluate(config, tmp_path / "resumed")
  before, after = (jax.tree.leaves(jax.device_get(result.state)) for result in (whole, resumed))
  assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
  assert resumed.metrics == pytest.approx(whole.metrics, nan_ok=True)


def test_a_batch_of_the_loader_is_as_the_task_says(rectangles):
  config = detectors.config(rectangles)
  split = datasets.of(config, "train")
  batches = loader.train_batches(split, config, start_step=0)
  specs = {spec["image"][0][:2]: spec for spec in tasks.batch_specs(config)}
  for step in range(4):
    batch = next(batches)
    shape = loader.canvas_of_step(split, config, step)
    assert {key: (x.shape[1:], x.dtype) for key, x in batch.items()} == specs[shape]


def _losses(parts=1, **mesh):
  """Every loss of two steps on the same batches."""

  config = detectors.config("digit_scenes")
  config.data.update(canvas=(64, 64), scale=(64, 64))
  config.accumulation_steps = parts
  config.mesh.update(mesh)
  count = mesh.get("data", 1) * mesh.get("fsdp", 1)
  made = setup_lib.make_parts(config, num_images=40, num_classes=10, devices=jax.devices()[:count])
  step, _ = setup_lib.compile_step(made)
  state, found = step_lib.create_state(made.init, made.abstract, 0), []
  for seed in range(2):
    batch = tasks.random_batch(config, 10, seed)
    batch["labels"][::3, 2:] = -1  # images differ in how much they add to each mean
    batch["labels"][1] = -1
    state, metrics = step(state, sharding.put_batch(batch, made.mesh))
    found.append({name: float(value) for name, value in metrics.items() if "loss" in name or name == "accuracy"})
  return found


@pytest.mark.slow
def test_losses_do_not_depend_on_the_mesh_or_on_accumulation():
  """All are sums over the batch, divided by numbers of anchors and RoIs in it."""
  for a, b in zip(_losses(), _losses(data=2, fsdp=2, parts=2), strict=True):
    assert b == pytest.approx(a, rel=2e-4)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(loss="sigmoid"), "softmax"),
    ({"augment.mixup": 0.2, "augment.photometric": True}, r"mixup.*photometric"),
    ({"model.name": "upernet"}, "no detector.*mask_rcnn"),
    ({"model.backbone": "vit_b16"}, r"one image size.*asmlp_tiny"),
  ],
)
def test_configs_that_cannot_be_trained_are_refused(changes, message):
  config = detectors.config("digit_scenes")
  if "model.backbone" in changes:
    del config.model.hidden_dim, config.model.num_blocks, config.model.patch_size
  for field, value in changes.items():
    node = config if "." not in field else config[field.partition(".")[0]]
    node[field.rpartition(".")[2]] = value
  with pytest.raises(UserError, match=message):
    setup_lib.make_parts(config, num_images=40, num_classes=10)


def test_without_masks_nothing_of_masks_is_left():
  config = detectors.config("digit_scenes", masks=False)
  made = setup_lib.make_parts(config, num_images=40, num_classes=10)
  assert "mask_head" not in made.abstract.params
  assert "masks" not in tasks.batch_specs(config)[0]
  assert list(detection.metrics(config))[:2] == ["box_ap", "box_ap50"]
  assert not [name for name in detection.metrics(config) if "mask" in name]
  found = jax.eval_shape(made.model.apply, {"params": made.abstract.params}, jnp.zeros((1, 64, 96, 3)))
  assert found.masks is None


@pytest.mark.slow
@pytest.mark.soak
def test_four_scenes_are_learnt_by_heart(command, scenes, tmp_path):
  """Of these four; in others, some digits are thinner than any anchor, and no proposal finds them."""
  few = (
    "data.train_split=train[11:15]",
    "data.eval_split=train[11:15]",
    "data.batch_size=4",
    "augment.short_sides=(96,)",
  )
  lengths = ("duration=450 steps", "eval.every=450 steps", "checkpoint.every=450 steps", "log_every=50 steps")
  options = [f"--config.{option}" for option in (*few, *lengths, "optim.schedule.warmup=20 steps")]
  code, output = command(
    "train.py", "--config=configs/quickstart_detection.py", f"--workdir={tmp_path}", *options, XLA_FLAGS=""
  )  # fmt: skip
  assert code == 0, output
  metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  last = {name: value for line in metrics for name, value in line.items()}
  assert last["val/box_ap"] > 0.9
  assert last["val/mask_ap"] > 0.6
  assert last["train/loss"] < 0.3
