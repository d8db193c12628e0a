"""Distillation: the losses, the same step on any devices, what must not teach, and an exact resume."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models, sharding, tasks, weights
from mlpvision.errors import UserError
from mlpvision.training import distill, loop, setup as setup_lib, step as step_lib


def _save(path, num_classes=10, image_size=28):
  """A tiny Mixer, of another family and normalization than the student."""
  sizes = dict(num_blocks=1, hidden_dim=8, patch_size=7, tokens_mlp_dim=4, channels_mlp_dim=8)
  model = models.create("mixer_s16", num_classes=num_classes, **sizes)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, image_size, image_size, 3)))["params"]
  params = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), shapes)
  view = weights.Preprocessing((0.4,) * 3, (0.2,) * 3, crop_ratio=1.0, interpolation="bicubic", image_size=image_size)
  weights.save(path, model, params, view)
  return model, params


@pytest.fixture
def config(small_config, tmp_path):
  _save(tmp_path / "teacher.safetensors")
  small_config.distill.teacher = str(tmp_path / "teacher.safetensors")
  small_config.augment.update(crop="center", mixup=0.5)
  small_config.data.batch_size = 32
  return small_config


def test_losses_are_those_of_the_papers(small_config):
  logits, of_teacher = (jax.random.normal(jax.random.key(i), (4, 3)) * 2 for i in range(2))
  targets = jnp.eye(3)[jnp.array([0, 1, 2, 0])]

  def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

  small_config.distill.update(loss="soft", temperature=2.0)
  theirs, own = softmax(np.asarray(of_teacher) / 2), softmax(np.asarray(logits) / 2)
  found, means = distill.loss(small_config, logits, of_teacher, targets)
  np.testing.assert_allclose(found, 4 * (theirs * np.log(theirs / own)).sum(-1).mean(), rtol=1e-5)
  best = of_teacher.argmax(-1)
  assert means["agreement"] == (logits.argmax(-1) == best).mean()
  small_config.distill.loss = "hard"
  own = softmax(np.asarray(logits))
  expected = -(np.log((own * targets).sum(-1)) + np.log(own[np.arange(4), best])).mean() / 2
  np.testing.assert_allclose(distill.loss(small_config, logits, of_teacher, targets)[0], expected, rtol=1e-5)


def test_the_teacher_sees_the_student_s_images_as_it_knows_them(config, tmp_path):
  model, params = _save(tmp_path / "teacher.safetensors")
  teacher = distill.open_teacher(config, sharding.make_mesh(), 10)
  pixels = jax.random.uniform(jax.random.key(0), (2, 28, 28, 3))
  mean, std = (jnp.array(values) for values in (config.data.mean, config.data.std))
  found = teacher.logits(config, teacher.placed(), (pixels - mean) / std)
  np.testing.assert_allclose(found, model.apply({"params": params}, (pixels - 0.4) / 0.2), atol=1e-4)


def test_losses_do_not_depend_on_how_the_work_is_split(config):
  losses = {}
  for fsdp, config.accumulation_steps in ((1, 1), (4, 2)):
    config.mesh.update(data=1 if fsdp == 1 else 2, fsdp=fsdp)
    devices = jax.devices()[: config.mesh.data * fsdp]
    parts = setup_lib.make_parts(config, num_images=4000, num_classes=10, devices=devices)
    step, _ = setup_lib.compile_step(parts)
    state, teacher, found = step_lib.create_state(parts.init, parts.abstract, 0), parts.teacher.placed(), []
    for i in range(3):
      batch = sharding.put_batch(tasks.random_batch(config, 10, seed=i), parts.mesh)
      state, metrics = step(state, batch, teacher)
      found.append(metrics["loss"].item())
    losses[fsdp] = found
  np.testing.assert_allclose(losses[4], losses[1], rtol=1e-4)


@pytest.mark.parametrize(
  ("saved", "changed", "message"),
  [
    (dict(num_classes=7), {}, "has 7 classes, but this run has 10"),
    (dict(image_size=35), {}, "is for images of 35, but data.image_size is 28"),
    ({}, {"loss": "sigmoid"}, "loss='softmax'"),
    ({}, {"distill.teacher": "/nowhere"}, "distill.teacher: /nowhere is not a run"),
  ],
)
def test_what_cannot_teach(config, tmp_path, saved, changed, message):
  _save(tmp_path / "teacher.safetensors", **saved)
  config.update_from_flattened_dict(changed)
  with pytest.raises(UserError, match=message):
    distill.open_teacher(config, sharding.make_mesh(), 10)


def test_other_classes_cannot_teach(config, tmp_path):
  teacher = tmp_path / "teacher.safetensors"
  model, params = _save(teacher)
  view = weights.Preprocessing((0.4,) * 3, (0.2,) * 3, crop_ratio=1.0, interpolation="bicubic", image_size=28)
  weights.save(teacher, model, params, view, class_names=tuple("abcdefghij"))
  with pytest.raises(UserError, match="'a' in the place of '0'"):
    distill.open_teacher(config, sharding.make_mesh(), 10, tuple("0123456789"))


@pytest.mark.slow
def test_a_stopped_run_resumes_bit_for_bit(config, tmp_path):
  config.data.update(workers=0, eval_split="test[:40]")
  config.update(duration="4 steps", log_every="1 step")
  config.optim.schedule.warmup = "1 step"
  config.checkpoint.every = "2 steps"

  def rows(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if not key.startswith("perf/")} for row in lines]

  whole = loop.train_and_evaluate(config, tmp_path / "whole")
  stop = _StopAfter(2)
  assert not loop.train_and_evaluate(config, tmp_path / "parts", stop).finished
  resumed = loop.train_and_evaluate(config, tmp_path / "parts")
  jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)
  assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
  assert "train/agreement" in rows(tmp_path / "whole")[0]


class _StopAfter:
  """What `loop.train_and_evaluate` needs of a `StopRequest`."""

  def __init__(self, step):
    self._step, self.running = step, False

  def is_due(self, step):
    return step == self._step
