"""Linear classifiers on frozen features."""

import json

import numpy as np
import pytest

from mlpvision import models, sharding
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.fewshot import linear_probe
from mlpvision.training import loop


def _blobs(n, noise, seed):
  """Features of three classes around three far points, on different scales."""
  random = np.random.default_rng(seed)
  labels = random.integers(0, 3, n)
  centres = np.array([[0, 0, 0, 0], [4, 0, 0, 0], [0, 4, 0, 0]], float)
  return (centres[labels] + noise * random.standard_normal((n, 4))) * [1, 1e3, 1e-3, 1] + [0, 50, 0, 9], labels


def test_ridge_separates_what_a_line_can():
  weights, bias = linear_probe.ridge(*_blobs(60, 0.3, 0), 3)
  features, labels = _blobs(300, 0.3, 1)
  assert ((features @ weights + bias).argmax(1) == labels).mean() > 0.98


def _separable():
  labels = np.arange(30) % 3
  return np.c_[np.eye(3)[labels], np.arange(30)], labels


def _noise():
  random = np.random.default_rng(0)
  return random.standard_normal((30, 4)), (np.arange(30) % 10 > 6).astype(int) + (np.arange(30) == 0)


_DATA = {
  "separable": _separable(),
  "noise": _noise(),
  # What one image less changes decides between strengths in most of these.
  **{f"blobs {seed}": _blobs(20, 2.5, seed) for seed in range(2, 8)},
}


@pytest.mark.parametrize("data", _DATA.values(), ids=_DATA)
def test_the_strength_is_the_one_that_is_best_without_each_image(data):
  """Against training it n times for every strength: 1e-5 to 100 times the mean eigenvalue."""
  features, labels = data
  n = len(labels)
  standard = (features - features.mean(0)) / (features.std(0) + 1e-6)
  targets = np.eye(3)[labels]
  x, scores = np.c_[standard, np.ones(n)], []  # with a bias that is not penalised
  for strength in np.logspace(-5, 2, 8) * (standard**2).sum() / 4:
    left_out = np.empty((n, 3))
    penalty = np.diag([strength] * 4 + [0.0])
    for i in range(n):
      kept = np.arange(n) != i
      left_out[i] = x[i] @ np.linalg.solve(x[kept].T @ x[kept] + penalty, x[kept].T @ targets[kept])
    scores.append(((left_out.argmax(1) == labels).mean(), -np.square(left_out - targets).mean(), strength))
  best = max(scores)[-1]
  penalty = np.diag([best] * 4 + [0.0])
  expected = x @ np.linalg.solve(x.T @ x + penalty, x.T @ targets)
  weights, bias = linear_probe.ridge(features, labels, 3)
  np.testing.assert_allclose(features @ weights + bias, expected, rtol=1e-6, atol=1e-8)


def test_images_of_every_class_are_drawn(data_dir):
  split = datasets.open_split("mnist5k", "train[:500]", str(data_dir))
  chosen = linear_probe._choose(split, 7, seed=0)
  labels = [int(chosen.source[i]["label"]) for i in range(len(chosen))]
  assert np.bincount(labels).tolist() == [7] * 10
  assert linear_probe._choose(split, 7, seed=1).source.indices != chosen.source.indices
  with pytest.raises(UserError, match="not 400"):
    linear_probe._choose(split, 400, seed=0)


def test_metrics_are_named_by_the_shots(small_config):
  metrics = linear_probe.FewShot.metrics
  assert list(metrics({"shots": (5, 0)}, small_config)) == ["top1_5shot", "top1_probe"]
  assert list(metrics({}, small_config)) == ["top1_1shot", "top1_5shot", "top1_10shot"]


def test_on_several_devices_it_is_the_same(small_config, data_dir):
  splits = [datasets.open_split("mnist5k", split, str(data_dir)) for split in ("train[:300]", "test[:90]")]
  model = models.create("s2mlp_wide", num_classes=10, num_blocks=1, hidden_dim=16, patch_size=4)
  params = model.init({"params": np.array([0, 1], np.uint32)}, np.zeros((1, 28, 28, 3), np.float32))["params"]
  results = []
  for devices in (1, 8):
    import jax

    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    results.append(linear_probe.FewShot(model, *splits, small_config, mesh, (5, 0)).run({"params": params}))
  assert results[0] == results[1]
  assert list(results[0]) == ["top1_5shot", "top1_probe"]
  assert results[0]["top1_probe"] > 0.3  # of untrained features; chance is 0.1


def test_during_training_and_alone(small_config, here, tmp_path):
  small_config.duration = "20 steps"
  small_config.evals.fewshot.update(every="10 steps", shots=(5,))
  small_config.data.eval_split = "test[:100]"
  loop.train_and_evaluate(small_config, tmp_path)
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  found = {row["step"]: row["fewshot/top1_5shot"] for row in rows if "fewshot/top1_5shot" in row}
  assert list(found) == [10, 20]
  code, output = here("-m", "mlpvision.fewshot", f"--weights={tmp_path}", "--shots=5", "--json")
  assert code == 0, output
  (row,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
  assert row["top1_5shot"] == pytest.approx(found[20], abs=0.011)
