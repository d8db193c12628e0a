"""Trained detectors, from a run and from a file: prediction, warm starts, export, and messages."""

import dataclasses
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart, quickstart_detection
import mlpvision
from mlpvision import config as config_lib, tasks, trained, weights
from mlpvision.checkpoints import Checkpoints
from mlpvision.errors import UserError
from mlpvision.evaluate import confusion, evaluators, run as run_lib
from mlpvision.export import formats
from mlpvision.training.step import TrainState

_NAMES = ["a", "b", "c"]
_PICTURE = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)


def _config():
  config = quickstart_detection.get_config()
  config.model.update(hidden_dim=8, depths=(1, 1, 1, 1), channels=8, head_dim=16, pre_nms=(20, 20), detections=5)
  config.model.update(train_proposals=10, test_proposals=10, rpn_samples=16, roi_samples=16)
  with config.unlocked():
    config.model.score_threshold = 0.01  # random weights are of no class in particular
  config.data.update(scale=(64, 40), canvas=(64, 64))
  config.augment.short_sides = (40,)
  return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """The workdir of a detector with random parameters."""
  config, rng = _config(), np.random.default_rng(0)
  model = tasks.make_model(config, len(_NAMES))
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))["params"]
  params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32), shapes)
  workdir = tmp_path_factory.mktemp("detector")
  checkpoints = Checkpoints(workdir, keep=1)
  state = TrainState(jnp.zeros((), jnp.int32), params, None, {"count": jnp.zeros(())})
  checkpoints.save(0, state, {"config": config_lib.to_json(config), "class_names": _NAMES})
  checkpoints.close()
  return workdir


@pytest.fixture(scope="module")
def detector(run):
  return mlpvision.load(run)


@pytest.fixture(scope="module")
def file(detector, tmp_path_factory):
  path = tmp_path_factory.mktemp("file") / "detector.safetensors"
  formats.to_safetensors(detector, path)
  return path


@pytest.fixture(scope="module")
def prediction(detector):
  return detector.predict(_PICTURE)[0]


def test_a_picture_of_any_size(detector, prediction):
  assert detector.task is tasks.detection
  assert detector.preprocess(_PICTURE).shape == (36, 64, 3)
  assert prediction.size == (50, 90)
  assert prediction.class_names == tuple(_NAMES)
  assert 0 < len(prediction.boxes) == len(prediction.scores) == len(prediction.labels) == len(prediction.masks) <= 5
  assert (np.diff(prediction.scores) <= 0).all()
  assert prediction.boxes.min() >= 0
  assert (prediction.boxes <= [90, 50, 90, 50]).all()
  assert all(mask.shape == (50, 90) for mask in prediction.masks)


def test_a_file_is_the_same_program_with_the_same_parameters(file, detector):
  loaded = mlpvision.load(file)
  assert (loaded.model.detections, loaded.model.pre_nms, loaded.model.score_threshold) == (5, (20, 20), 0.01)
  assert (loaded.preprocessing, loaded.class_names) == (detector.preprocessing, tuple(_NAMES))
  assert loaded.config_of_task.data.canvas == (64, 64)
  assert loaded.preprocess(_PICTURE).shape == (36, 64, 3)
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, detector.variables)
  rows = [one.task.row(_PICTURE, one.config_of_task) for one in (loaded, detector)]
  jax.tree.map(np.testing.assert_array_equal, *rows)
  batch = jax.tree.map(lambda x: x[None], rows[0])
  texts = [one._probabilities.lower(loaded.variables, batch).as_text() for one in (loaded, detector)]
  assert texts[0] == texts[1]


@pytest.mark.slow  # compiles that program again
def test_a_file_predicts_what_the_run_does(file, prediction):
  (found,) = mlpvision.load(file).predict(_PICTURE)
  for name in ("boxes", "scores", "labels", "masks"):
    np.testing.assert_array_equal(getattr(found, name), getattr(prediction, name))


def test_a_file_that_does_not_note_its_preprocessing_has_mmdetections(file, detector, tmp_path):
  weights.save(tmp_path / "x.safetensors", detector.model, detector.params)
  loaded = mlpvision.load(tmp_path / "x.safetensors")
  assert loaded.config_of_task.to_dict() == {
    "data": {
      "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "image_size": 224, "scale": (1333, 800),
      "canvas": (800, 1344),
    },
    "eval": {"crop_ratio": 0.875, "interpolation": "bilinear"},
    "model": {"masks": True},
  }  # fmt: skip
  view = weights.Preprocessing((0.5,) * 3, (0.5,) * 3, scale=(5000, 800))
  weights.save(tmp_path / "y.safetensors", detector.model, detector.params, view)
  with pytest.raises(UserError, match=r"scale=.5000, 800.: a detector's images have up to 4096 pixels a side"):
    mlpvision.load(tmp_path / "y.safetensors")


@pytest.mark.parametrize(
  ("canvas", "message"),
  [((64, 32), "has no room for data.scale"), ((10**6, 64), "up to 4096"), (("a", 64), "multiples of 32")],
)
def test_a_run_whose_canvas_cannot_be(canvas, message, detector):
  config = detector.config.copy_and_resolve_references()
  with config.unlocked():
    config.data.canvas = canvas
  with pytest.raises(ValueError, match=message):
    trained._check_view(dataclasses.replace(detector, config=config))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(detections=10**9), "detections=1000000000 is not possible"),
    (dict(test_proposals=10**5), "test_proposals=100000, but at most 10000"),
    (dict(masks="yes"), "masks=yes is not possible"),
    (dict(score_threshold=float("nan")), "score_threshold"),
    (dict(pre_nms=[0, 5]), "pre_nms"),
    (dict(backbone="mixer_b16"), "it works at one image size"),
    (dict(backbone=None), "needs a backbone"),
    (dict(name="upernet"), "no option 'detections'"),
    (dict(masks=False), "do not fit mask_rcnn, as mask_head"),
    (dict(name="cascade_mask_rcnn"), "do not fit cascade_mask_rcnn, as"),
  ],
)
def test_a_run_that_is_not_what_it_says(change, message, detector):
  meta = {"config": config_lib.to_json(detector.config), "class_names": _NAMES}
  meta["config"]["model"].update(change)
  with pytest.raises((UserError, ValueError), match=message):
    trained._of_run(detector.variables, meta, 0, "run")


@pytest.mark.slow  # compiles another program
def test_stablehlo(detector, tmp_path):
  formats.to_stablehlo(detector, tmp_path / "model")
  exported = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
  row = detector.task.row(_PICTURE, detector.config)
  found = exported.call(row["image"][None], row["size"][None])
  expected = jax.device_get(detector._probabilities(detector.variables, jax.tree.map(lambda x: x[None], row)))
  for name, value in expected._asdict().items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)
  assert exported.in_avals[0].shape[1:] == (64, 64, 3)
  about = json.loads((tmp_path / "model.json").read_text())
  assert (about["canvas"], about["scale"], about["class_names"]) == ([64, 64], [64, 40], _NAMES)


def test_evaluation_sees_images_as_the_weights_expect(file, detector):
  config = quickstart_detection.get_config()
  merged = run_lib.with_dataset(mlpvision.load(file), config)
  assert (merged.data.scale, merged.data.canvas, merged.model.masks) == ((64, 40), (64, 64), True)
  config.eval.batch_size = 3
  merged = run_lib.with_dataset(detector, config)
  assert (tuple(merged.data.scale), tuple(merged.data.canvas), merged.eval.batch_size) == ((64, 40), (64, 64), 3)


def test_what_only_classifiers_have_is_refused(file, detector):
  with pytest.raises(UserError, match="the weights are a detector, and --config is for a classifier"):
    run_lib.with_dataset(mlpvision.load(file), quickstart.get_config())
  with pytest.raises(UserError, match="confusion matrix is of a classifier or a segmenter, and .* a detector"):
    confusion.count(detector, None)
  with pytest.raises(UserError, match=r"calibration is for classifiers, and this is a detector.*\(AP\); remove it"):
    evaluators.check_task("calibration", detector.config, "remove it")
