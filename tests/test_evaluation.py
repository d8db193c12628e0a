"""Masked sums against NumPy, on eight devices, whatever the batch size."""

import jax
import numpy as np
import pytest

from mlpvision import models, sharding
from mlpvision.data import datasets
from mlpvision.evaluation.classification import Evaluator


@pytest.mark.parametrize("batch_size", [13, 300, 1000])
def test_evaluation_equals_numpy(small_config, data_dir, batch_size):
  split = datasets.open_split("mnist5k", "test[:157]", str(data_dir))
  model = models.create("s2mlp_wide", num_classes=10, num_blocks=1, hidden_dim=16, patch_size=4)
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32))["params"]
  params = jax.tree.map(lambda x: random.standard_normal(x.shape, np.float32), shapes)
  small_config.eval.batch_size = batch_size
  found = Evaluator(model, split, small_config, sharding.make_mesh()).run(params)

  images = np.stack([_pixels(split.source[i]["image"]) for i in range(157)])
  labels = np.array([split.source[i]["label"] for i in range(157)])
  logits = np.asarray(model.apply({"params": params}, (images / 255 - 0.5) / 0.5), np.float64)
  ranking = np.argsort(-logits, -1)
  log_sum = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
  assert found["images"] == 157
  assert found["top1"] == (ranking[:, 0] == labels).mean()
  assert found["top5"] == (ranking[:, :5] == labels[:, None]).any(-1).mean()
  np.testing.assert_allclose(found["loss"], (log_sum - logits[np.arange(157), labels]).mean(), rtol=1e-4)


def _pixels(encoded):
  from mlpvision.data import transforms

  return transforms.decode(encoded).astype(np.float32)


def test_two_classes_have_no_top_5(small_config):
  from mlpvision.evaluation.classification import make_eval_step

  step = make_eval_step(models.create("s2mlp_wide", num_classes=2, num_blocks=1, hidden_dim=8, patch_size=4),
                        (0.5,) * 3, (0.5,) * 3, "softmax")  # fmt: skip
  model = models.create("s2mlp_wide", num_classes=2, num_blocks=1, hidden_dim=8, patch_size=4)
  params = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))["params"]
  batch = {"image": np.zeros((3, 8, 8, 3), np.uint8), "label": np.zeros(3, np.int32), "mask": np.array([1, 1, 0], bool)}
  sums = step(params, batch)
  assert sums["top5"] == sums["images"] == 2
