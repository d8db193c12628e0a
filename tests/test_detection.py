"""Detection from end to end: two canvases, training, resumption, meshes, accumulation, scores, prediction."""

import json
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart_detection
import mlpvision
from mlpvision import sharding, tasks
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError
from mlpvision.evaluate import run as run_lib
from mlpvision.tasks import detection
from mlpvision.training import loop, setup as setup_lib, step as step_lib

# Compiled faster than AS-MLP.
_MODEL = dict(backbone="s2mlp_wide", hidden_dim=16, num_blocks=1, patch_size=16, channels=8, head_dim=16)
_MODEL |= dict(pre_nms=(20, 20), train_proposals=12, test_proposals=12, detections=6, rpn_samples=16, roi_samples=16)
_SHAPES = [(48, 64), (64, 48), (40, 60), (60, 40)]


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory):
  """A name for config.data.name: sixteen pictures of colored rectangles, half of them wide, in COCO's format."""
  root, rng = tmp_path_factory.mktemp("rectangles"), np.random.default_rng(0)
  (root / "images").mkdir()
  images, annotations = [], []
  for i in range(16):
    height, width = _SHAPES[i % 4]
    picture = rng.integers(0, 60, (height, width, 3), np.uint8)
    for _ in range(1 + i % 3):
      (y, x), (h, w), category = (
        rng.integers(0, (height // 2, width // 2)),
        rng.integers(12, 24, 2),
        int(rng.integers(2)),
      )
      picture[y : y + h, x : x + w] = (0, 90, 255) if category else (200, 255, 0)
      h, w = min(h, height - y), min(w, width - x)
      polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
      box, area = [int(n) for n in (x, y, w, h)], int(w * h)
      annotation = {"id": len(annotations) + 1, "image_id": i, "category_id": (3, 7)[category], "iscrowd": 0}
      annotations.append({**annotation, "bbox": box, "area": area, "segmentation": [[int(n) for n in polygon]]})
    cv2.imwrite(str(root / "images" / f"{i}.png"), picture)
    images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
  categories = [{"id": 3, "name": "green"}, {"id": 7, "name": "orange"}]
  found = {"images": images, "annotations": annotations, "categories": categories}
  (root / "objects.json").write_text(json.dumps(found))
  return f"coco:{root}/images,{root}/objects.json"


def _small(name, **options):
  config = quickstart_detection.get_config()
  del config.model.depths
  config.model.update(_MODEL | options)
  config.data.update(
    name=name, eval_split="train", canvas=(64, 96), scale=(96, 64), batch_size=8, max_objects=4, workers=0
  )
  config.augment.update(
    flip=0.5, short_sides=(56, 64), crop_probability=0.5, crop_short_sides=(48,), crop_sides=(32, 48)
  )
  config.optim.update(name="sgd", learning_rate=1e-2)
  config.optim.schedule.warmup = "1 step"
  config.update(duration="4 steps", log_every="1 step")
  config.eval.update(every="4 steps", batch_size=8)
  config.checkpoint.update(every="1 step", keep=9)
  return config


@pytest.fixture(scope="module")
def run(rectangles, tmp_path_factory):
  """(config, workdir, result) of a finished run on two canvases."""
  config = _small(rectangles)
  workdir = tmp_path_factory.mktemp("detection") / "run"
  return config, workdir, loop.train_and_evaluate(config, workdir)


def test_a_run_is_scored_by_cocos_figures(run):
  config, workdir, result = run
  expected = {f"val/{name}" for name in detection.metrics(config)}
  assert len(expected) == 24
  assert expected <= result.metrics.keys()
  found = run_lib.evaluate(workdir)
  assert all(
    np.isclose(found[name], result.metrics[f"val/{name}"], equal_nan=True) for name in detection.metrics(config)
  )


def test_steps_have_both_canvases_and_are_resumed_bit_for_bit(run, tmp_path):
  config, workdir, whole = run
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
  config = _small(rectangles)
  split = datasets.of(config, "train")
  batches = loader.train_batches(split, config, start_step=0)
  specs = {spec["image"][0][:2]: spec for spec in tasks.batch_specs(config)}
  for step in range(4):
    batch = next(batches)
    shape = loader.canvas_of_step(split, config, step)
    assert {key: (x.shape[1:], x.dtype) for key, x in batch.items()} == specs[shape]


def test_a_picture_of_any_size(run):
  _, workdir, _ = run
  picture = np.random.default_rng(0).integers(0, 256, (50, 83, 3), np.uint8)
  (found,) = mlpvision.load(workdir).predict(picture)
  assert len(found.boxes) == len(found.scores) == len(found.labels) == len(found.masks)
  assert all(mask.shape == (50, 83) for mask in found.masks)
  assert found.class_names == ("green", "orange")


@pytest.fixture(scope="module")
def split_losses():
  """losses(mesh and accumulation options) -> every loss of two steps on the same batches."""

  def losses(parts=1, **mesh):
    config = _small("digit_scenes")
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

  return losses


@pytest.mark.parametrize("options", [dict(data=2, fsdp=2), dict(parts=4)])
def test_losses_do_not_depend_on_the_mesh_or_on_accumulation(split_losses, options):
  """All are sums over the batch, divided by numbers of anchors and RoIs in it."""
  for a, b in zip(split_losses(), split_losses(**options), strict=True):
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
  config = _small("digit_scenes")
  if "model.backbone" in changes:
    del config.model.hidden_dim, config.model.num_blocks, config.model.patch_size
  for field, value in changes.items():
    node = config if "." not in field else config[field.partition(".")[0]]
    node[field.rpartition(".")[2]] = value
  with pytest.raises(UserError, match=message):
    setup_lib.make_parts(config, num_images=40, num_classes=10)


def test_without_masks_nothing_of_masks_is_left():
  config = _small("digit_scenes", masks=False)
  made = setup_lib.make_parts(config, num_images=40, num_classes=10)
  assert "mask_head" not in made.abstract.params
  assert "masks" not in tasks.batch_specs(config)[0]
  assert list(detection.metrics(config))[:2] == ["box_ap", "box_ap50"]
  assert not [name for name in detection.metrics(config) if "mask" in name]
  found = jax.eval_shape(made.model.apply, {"params": made.abstract.params}, jnp.zeros((1, 64, 96, 3)))
  assert found.masks is None
