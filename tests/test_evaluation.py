"""Masked sums against NumPy, on eight devices, whatever the batch size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models, sharding
from mlpvision.data import datasets, loader, transforms
from mlpvision.errors import UserError
from mlpvision.evaluate import evaluators
from mlpvision.evaluate.accuracy import Accuracy
from mlpvision.evaluate.calibration import Calibration
from mlpvision.evaluate.per_image import PerImage
from mlpvision.tasks import classification


@pytest.fixture(scope="module")
def split(data_dir):
  return datasets.open_split("mnist5k", "test[:157]", str(data_dir))


@pytest.fixture(scope="module")
def scored(split):
  """(a model, random parameters, their float64 logits for the split, its labels), with all degrees of confidence."""
  model = models.create("s2mlp_wide", num_classes=10, num_blocks=1, hidden_dim=16, patch_size=4)
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32))["params"]
  params = jax.tree.map(lambda x: random.standard_normal(x.shape, np.float32), shapes)
  images = np.stack([transforms.decode(split.source[i]["image"]) for i in range(157)])
  logits = jax.jit(model.apply)({"params": params}, (images.astype(np.float32) / 255 - 0.5) / 0.5)
  logits = np.asarray(logits, np.float64)
  head, mean = params["head"], logits.mean(0)
  params["head"] = {"kernel": 4 * head["kernel"], "bias": 4 * (head["bias"] - mean)}
  return model, params, 4 * (logits - mean), np.array([split.source[i]["label"] for i in range(157)])


@pytest.mark.parametrize("batch_size", [13, 300, 1000])
def test_evaluation_equals_numpy(small_config, split, scored, batch_size):
  model, params, logits, labels = scored
  small_config.eval.batch_size = batch_size
  found = Accuracy(model, split, small_config, sharding.make_mesh()).run({"params": params})
  ranking = np.argsort(-logits, -1)
  log_sum = np.log(np.exp(logits).sum(-1))
  assert found["images"] == 157
  assert found["top1"] == (ranking[:, 0] == labels).mean()
  assert found["top5"] == (ranking[:, :5] == labels[:, None]).any(-1).mean()
  np.testing.assert_allclose(found["loss"], (log_sum - logits[np.arange(157), labels]).mean(), rtol=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_results_of_every_image_equal_numpy(small_config, split, scored, multi_label):
  """With classes in another order, and an image without a label."""
  model, params, logits, labels = scored
  order = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
  logits, names = logits[:, order], tuple("abcdefghij")
  several = [[int(label)] if i % 2 else sorted({int(label), i % 7}) for i, label in enumerate(labels)]
  several[5] = []
  source = [
    {"image": split.source[i]["image"], "label": np.array(found, int) if multi_label else np.int64([*found, -1][0])}
    for i, found in enumerate(several)
  ]
  small_config.eval.batch_size = 64
  opened = dataclasses.replace(split, source=source, class_names=names, multi_label=multi_label)
  evaluator = PerImage(model, opened, small_config, sharding.make_mesh(), order)
  means = evaluator.run({"params": params})
  kept, log_sum = [i for i in range(157) if i != 5], np.log(np.exp(logits).sum(-1))
  expected = several if multi_label else [found[:1] for found in several]
  assert [row["index"] for row in evaluator.rows] == kept
  assert [row["label"] for row in evaluator.rows] == ["|".join(names[k] for k in expected[i]) for i in kept]
  assert [row["prediction"] for row in evaluator.rows] == [names[logits[i].argmax()] for i in kept]
  probabilities = [row["probability"] for row in evaluator.rows]
  np.testing.assert_allclose(probabilities, np.exp(logits.max(-1) - log_sum)[kept], rtol=1e-3)
  losses = [row["loss"] for row in evaluator.rows]
  np.testing.assert_allclose(losses, [log_sum[i] - logits[i, expected[i]].mean() for i in kept], rtol=1e-3, atol=1e-4)
  hits = [row["prediction"] in row["label"].split("|") for row in evaluator.rows]
  assert (means["images"], means["top1"]) == (156, np.mean(hits))
  assert means["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("classes", [None, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
def test_calibration_equals_numpy(small_config, split, scored, classes):
  model, params, logits, _ = scored
  logits = logits[:, classes] if classes else logits
  confidence = np.exp(logits.max(-1)) / np.exp(logits).sum(-1)
  bins = np.digitize(confidence, np.arange(1, 10) / 10)
  assert set(bins) == set(range(1, 10))
  # Right in every other bin and wrong in the rest: bins that were joined would cancel out.
  labels = np.where(bins % 2, logits.argmax(-1), logits.argmin(-1))
  source = [{"image": split.source[i]["image"], "label": labels[i]} for i in range(157)]
  small_config.eval.batch_size = 64  # the last batch is not full
  opened = dataclasses.replace(split, source=source)
  found = Calibration(model, opened, small_config, sharding.make_mesh(), classes).run({"params": params})["ece"]
  gaps = (logits.argmax(-1) == labels) - confidence
  np.testing.assert_allclose(found, sum(abs(gaps[bins == i].sum()) for i in range(10)) / 157, rtol=1e-4)


def test_two_classes_have_no_top_5():
  batch = {"label": np.zeros(3, np.int32), "mask": np.array([1, 1, 0], bool)}
  sums = classification.partial(np.zeros((3, 2), np.float32), batch, "softmax")
  assert sums["top5"] == sums["images"] == 2


def test_classes_are_matched_by_name():
  from mlpvision.evaluate.evaluators import match_classes as match

  names = dict(weights="w", dataset="d")
  assert match("abc", "abc", **names) == (None, None)
  chosen, note = match("abcd", "ca", **names)
  assert list(chosen) == [2, 0]
  assert "2 of the weights' 4 classes" in note
  chosen, note = match("abc", "cab", **names)
  assert list(chosen) == [2, 0, 1]
  assert "another order" in note
  chosen, note = match("012", "abc", **names)
  assert chosen is None
  assert note.startswith("the weights have numbers")
  assert match("abc", "012", **names)[1].startswith("the dataset has numbers")
  for ours, theirs, unknown in (
    ("abc", "abd", "d"),
    ("abc", "abcd", "d"),
    ("0123", "abc", "a, b, c"),
    ("ab", "012", "0"),
    (("0", "1", "10"), "abc", "a, b, c"),  # numbers, but not in their order
  ):
    with pytest.raises(UserError, match=f"d has {len(theirs)} classes, w has {len(ours)}; .*: {unknown}"):
      match(ours, theirs, **names)


@pytest.mark.parametrize("classes", [[3, 1, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
def test_a_subset_of_the_logits(classes):
  """Sums over rows that are not masked, of one right class or several, against NumPy."""
  random = np.random.default_rng(0)
  all_logits = random.standard_normal((6, 10)).astype(np.float32)
  logits = all_logits.astype(np.float64)[:, classes]
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  mask = np.array([1, 1, 0, 1, 1, 0], bool)
  right = random.random((6, len(classes))) < 0.4
  right[np.arange(6), random.integers(len(classes), size=6)] = True
  single = random.integers(len(classes), size=6).astype(np.int32)
  ranking = np.argsort(-logits, -1)[:, :5]
  for labels, truth in ((right, right), (single, np.eye(len(classes), dtype=bool)[single])):
    batch = {"label": jnp.asarray(labels), "mask": jnp.asarray(mask)}
    found = classification.partial(jnp.asarray(all_logits), batch, "softmax", np.array(classes))
    hits = np.take_along_axis(truth, ranking, -1)
    assert found["images"] == 4
    assert found["top1"] == hits[mask, 0].sum()
    assert found["top5"] == hits[mask].any(-1).sum()
    loss = -(log_p * truth).sum(-1) / truth.sum(-1)
    np.testing.assert_allclose(found["loss"], loss[mask].sum(), rtol=1e-4)


def test_images_without_a_label_are_not_scored(small_config, split):
  images = [split.source[i]["image"] for i in range(3)]
  labels = {False: (4, -1, 0), True: ([1, 4], [], [0])}
  for multi_label, of in labels.items():
    source = [{"image": image, "label": np.asarray(label, int)} for image, label in zip(images, of, strict=True)]
    opened = datasets.Split(source, "secret:test", split.class_names, multi_label)
    (batch,) = loader.eval_batches(opened, small_config)
    assert list(batch["mask"][:3]) == [True, False, True]
    assert not batch["mask"][3:].any()
    if multi_label:
      assert [list(row.nonzero()[0]) for row in batch["label"][:3]] == [[1, 4], [], [0]]
    else:
      assert list(batch["label"][[0, 2]]) == [4, 0]


def test_the_summary_shows_what_people_look_for():
  values = {"top1": 0.51239, "top5": 0.9, "loss": 1.23456, "images": 1000}
  results = {f"val/{prefix}{name}": value for prefix in ("", "ema_") for name, value in values.items()}
  line = evaluators.summary({**results, "calibration/ece": 0.03})
  for shown in ("top-1 51.24%", "top-5 90.00%", "loss 1.2346", "EMA top-1 51.24%", "1,000", "ece 3.00%"):
    assert line.count(shown) == 1 + (shown == "top-1 51.24%")
  assert "EMA top-5" not in line
  assert "EMA loss" not in line


def test_probabilities_and_predictions():
  logits = np.array([0.5, -1.0, 2.0, 0.0, 1.0, -3.0])
  softmax, sigmoid = (
    np.asarray(classification.probabilities(logits[None], loss)[0]) for loss in ("softmax", "sigmoid")
  )
  np.testing.assert_allclose(softmax, np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
  np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-logits)), rtol=1e-5)
  names = ("a", "b", "c", "d", "e", "n02123045")
  found = classification.predictions(softmax, names)
  assert [p.name for p in found] == list("ceadb")
  assert [p.probability for p in found] == np.sort(softmax)[:0:-1].tolist()
  assert [p.name for p in classification.predictions(-softmax, names, 1)] == ["n02123045"]
  target = np.array([0.3, 0.01, 0.06, 0.6, 0.03])
  assert [line[0] for line in classification.caption(target, "abcde").splitlines()] == ["d", "a"]
  assert classification.caption(np.array([0.09, 0.91]), "34") == "4: 91%\n3: 9%"
