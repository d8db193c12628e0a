"""Segmentation from end to end: training, statistics, resumption, evaluation at the labels' size, prediction."""

import dataclasses
import pathlib
import shutil

from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
import mlpvision
from mlpvision import sharding, tasks
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError
from mlpvision.evaluate import run as run_lib
from mlpvision.export import hub
from mlpvision.tasks import segmentation, whole_image
from mlpvision.training import loop, setup as setup_lib, step as step_lib, warm_start


@pytest.fixture(scope="module")
def run(segmentation_run):
  """(config, workdir, result) of a finished run with an EMA."""
  return segmentation_run


def test_a_run_is_scored_and_its_statistics_move(run):
  config, workdir, result = run
  assert {f"val/{kind}{metric}" for kind in ("", "ema_") for metric in segmentation.METRICS} <= result.metrics.keys()
  stats = flatten_dict(result.state.stats["batch_stats"], sep="/")
  averaged = flatten_dict(result.state.ema_stats["batch_stats"], sep="/")
  assert all(np.abs(x).max() > 1e-3 for path, x in stats.items() if path.endswith("mean"))
  assert all(not np.array_equal(stats[path], averaged[path]) for path in stats)
  found = run_lib.evaluate(workdir)
  assert [found[name] for name in segmentation.METRICS] == [
    result.metrics[f"val/{name}"] for name in segmentation.METRICS
  ]
  assert run_lib.evaluate(workdir, ema=True)["aacc"] == result.metrics["val/ema_aacc"]


def test_a_run_is_resumed_bit_for_bit(run, tmp_path):
  config, workdir, whole = run
  shutil.copytree(workdir, tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "4")
  resumed = loop.train_and_evaluate(config, tmp_path / "resumed")
  before, after = (jax.tree.leaves(jax.device_get(result.state)) for result in (whole, resumed))
  assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
  assert resumed.metrics == whole.metrics


def test_a_picture_of_any_size(run):
  config, workdir, _ = run
  trained = mlpvision.load(workdir)
  picture = np.random.default_rng(0).integers(0, 256, (50, 83, 3), np.uint8)
  (found,) = trained.predict(picture)
  assert found.labels.shape == (50, 83)
  assert found.labels.dtype == np.uint8
  assert sum(pixels for _, pixels in found.areas()) == found.labels.size
  assert tasks.of(config).as_json(found)["height"] == 50


def test_another_run_starts_from_the_whole_segmenter_or_from_a_classifier(run, small_config, tmp_path):
  config, workdir, result = run
  config = config.copy_and_resolve_references()
  config.unlock()
  config.update(init_from=str(workdir), duration="1 step")
  setup = setup_lib.set_up(config, warm=True)
  loaded, text = warm_start.parameters(setup.config, setup.source, setup.abstract.params, setup.train_split.class_names)
  state = step_lib.create_state(setup.init, setup.abstract, 0, loaded)
  for own, theirs in ((state.params, result.state.params), (state.stats, result.state.stats)):
    jax.tree.map(np.testing.assert_array_equal, own, theirs)

  classifier = small_config
  classifier.model.patch_size = 16
  classifier.data.update(image_size=32, workers=0, batch_size=8, eval_split="test[:16]")
  classifier.update(duration="1 step")
  classifier.optim.schedule.warmup = "0 steps"
  done = loop.train_and_evaluate(classifier, tmp_path / "classifier")
  config.init_from = str(tmp_path / "classifier")
  setup = setup_lib.set_up(config, warm=True)
  loaded, text = warm_start.parameters(setup.config, setup.source, setup.abstract.params, setup.train_split.class_names)
  of_backbone = flatten_dict(done.state.params, sep="/")
  assert {path.partition("/")[0] for path in loaded} == {"backbone"}
  assert all(np.array_equal(of_backbone[path.removeprefix("backbone/")], array) for path, array in loaded.items())
  assert "decode_head/..." in text
  config.model.backbone = "swin_tiny"
  del config.model.hidden_dim, config.model.num_blocks, config.model.patch_size
  with pytest.raises(UserError, match=r"backbone=swin_tiny.*set --config.model.backbone=s2mlp_wide"):
    setup_lib.set_up(config, warm=True)


@pytest.fixture(scope="module")
def split_losses(run):
  """losses(mesh and accumulation options) -> (losses and running means of three steps on the same batches)."""
  config = run[0]

  def losses(**options):
    own = config.copy_and_resolve_references()
    own.unlock()
    own.accumulation_steps, own.ema_decay = options.pop("parts", 1), 0.0
    own.mesh.update(options)
    own.augment.photometric = False  # compiles faster
    count = options.get("data", 1) * options.get("fsdp", 1)
    parts = setup_lib.make_parts(own, num_images=40, num_classes=11, devices=jax.devices()[:count])
    step, _ = setup_lib.compile_step(parts)
    state, found = step_lib.create_state(parts.init, parts.abstract, 0), []
    for seed in range(3):
      state, metrics = step(state, sharding.put_batch(tasks.random_batch(own, 11, seed), parts.mesh))
      found.append(float(metrics["loss"]))
    return found, jax.device_get(state.stats)

  return losses


def test_losses_and_statistics_do_not_depend_on_the_mesh(split_losses):
  """Batch normalization sees the whole batch."""
  (losses, stats), (other, other_stats) = split_losses(data=1), split_losses(data=2, fsdp=2)
  np.testing.assert_allclose(other, losses, rtol=2e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), other_stats, stats)


def test_scores_are_mmsegmentations():
  golden = dict(np.load(pathlib.Path(__file__).parent / "data" / "miou.npz"))
  total, classes = 0, int(golden["num_classes"])
  for i in range(5):
    batch = {"label": jnp.asarray(golden[f"label_{i}"])[None], "mask": jnp.array([True])}
    maps = segmentation.Maps(jnp.asarray(golden[f"prediction_{i}"], jnp.int32)[None], classes)
    total += np.asarray(segmentation.partial(maps, batch, "softmax")["confusion"], np.int64)
  scores = segmentation.scores({"confusion": total})
  for ours, theirs in (("miou", "mIoU"), ("aacc", "aAcc"), ("macc", "mAcc")):
    assert scores[ours] == pytest.approx(float(golden[theirs]), rel=1e-6)
  assert np.array_equal(total.diagonal(), golden["intersect"])
  assert np.array_equal(total.sum(0), golden["pred_area"])
  assert np.array_equal(total.sum(1), golden["label_area"])
  with pytest.raises(UserError, match="no pixel"):
    segmentation.scores({"confusion": np.zeros((3, 3))})


def _logits(images, sizes=None):
  """A stand-in for a model: the image at a quarter of its resolution, with another weight per class."""
  x = images.reshape(images.shape[0], images.shape[1] // 4, 4, images.shape[2] // 4, 4, 3).mean((2, 4))
  x = x @ jnp.array([[1.0, -2, 0.5, 0], [0, 1, -1, 0.3], [-1, 0.2, 0.7, 1]])
  return (x, -(-sizes // 4)) if sizes is not None else x


def _config(**view):
  config = default.get_config()
  config.data.update(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), image_size=16)
  config.eval.update(view)
  return config


def _batch(shapes, label, rng):
  """A batch of two images: per scale canvases that the images fill in part, and a canvas of labels."""
  images, sizes = [], []
  for height, width in shapes:
    images.append(rng.integers(0, 256, (2, height + 12, width + 8, 3), np.uint8))
    sizes.append(np.array([(height, width)] * 2, np.int32))
  canvas = np.full((2, label[0] + 3, label[1] + 5), 255, np.uint8)
  return {
    "images": tuple(images), "sizes": tuple(sizes), "label": canvas, "label_size": np.array([label] * 2, np.int32)
  }  # fmt: skip


@pytest.mark.parametrize("flip", [False, True])
def test_scales_and_mirrored_images_are_averaged_as_probabilities_at_the_labels_size(flip):
  rng, label = np.random.default_rng(0), (37, 51)
  batch = _batch([(24, 32), (36, 44)], label, rng)
  found, _ = jax.jit(lambda batch: whole_image.predict(_logits, batch, _config(flip=flip)))(batch)

  expected = 0
  for images, sizes in zip(batch["images"], batch["sizes"], strict=True):
    height, width = sizes[0]
    alone = images[:, :height, :width].astype(np.float32) / 255
    for mirrored in (False, True)[: 1 + flip]:
      logits = _logits(jnp.asarray(alone[:, :, ::-1] if mirrored else alone))
      of_image = jax.image.resize(logits, (2, height, width, 4), "bilinear", antialias=False)
      of_label = jax.image.resize(of_image, (2, *label, 4), "bilinear", antialias=False)
      probabilities = jax.nn.softmax(of_label)
      expected += probabilities[:, :, ::-1] if mirrored else probabilities
  assert np.array_equal(found[:, : label[0], : label[1]], expected.argmax(-1))


def test_windows_cover_the_image_and_overlap_evenly():
  """Against a loop over each image alone, with windows moved inwards at its own border."""
  rng, label = np.random.default_rng(1), (30, 45)
  batch = _batch([(20, 36)], label, rng)
  config = _config(mode="slide", stride=(10, 11))
  found, _ = jax.jit(lambda batch: whole_image.predict(_logits, batch, config))(batch)
  image = batch["images"][0][:, :20, :36].astype(np.float32) / 255
  total, count = np.zeros((2, 20, 36, 4)), np.zeros((2, 20, 36, 1))
  for y in (0, 4):  # 0 and 10, the latter moved inwards
    for x in (0, 11, 20):
      logits = _logits(jnp.asarray(image[:, y : y + 16, x : x + 16]))
      total[:, y : y + 16, x : x + 16] += jax.image.resize(logits, (2, 16, 16, 4), "bilinear", antialias=False)
      count[:, y : y + 16, x : x + 16] += 1
  expected = jax.image.resize(jnp.asarray(total / count), (2, *label, 4), "bilinear", antialias=False).argmax(-1)
  assert (found[:, : label[0], : label[1]] != expected).mean() < 1e-3  # ties of rounding


def test_an_image_smaller_than_a_window_is_seen_alone(run):
  config, workdir, _ = run
  trained = mlpvision.load(workdir)
  picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
  whole = trained.predict(picture)[0].labels
  with trained.config.unlocked():
    trained.config.eval.update(mode="slide", stride=(43, 43))
    trained.config.data.image_size = 128
  slid = mlpvision.load(workdir)
  slid = dataclasses.replace(slid, config=trained.config)
  assert (slid.predict(picture)[0].labels != whole).mean() < 1e-3


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(loss="sigmoid"), "softmax_valid"),
    (dict(label_smoothing=0.1), "label_smoothing"),
    ({"augment.mixup": 0.2, "augment.randaugment": "rand-m9"}, r"randaugment.*mixup"),
    ({"data.batch_size": 2, "accumulation_steps": 2}, "two images"),
    ({"model.name": "asmlp_tiny", "model.backbone": "asmlp_tiny"}, "no segmenter.*upernet"),
    ({"model.backbone": "vit_b16"}, r"one image size.*eval.mode='slide'"),
  ],
)
def test_configs_that_cannot_be_trained_are_refused(small_segmentation, changes, message):
  config = small_segmentation
  if "model.backbone" in changes:
    del config.model.hidden_dim, config.model.depths
  for field, value in changes.items():
    *parents, name = field.split(".")
    node = config
    for parent in parents:
      node = node[parent]
    node[name] = value
  with pytest.raises(UserError, match=message):
    setup_lib.make_parts(config, num_images=40, num_classes=11)


def test_a_batch_of_the_loader_is_as_the_task_says(small_segmentation):
  split = datasets.of(small_segmentation, "train")
  batch = next(loader.train_batches(split, small_segmentation, start_step=0))
  assert {key: (x.shape[1:], x.dtype) for key, x in batch.items()} == tasks.batch_specs(small_segmentation)[0]


def test_a_run_becomes_a_folder_for_the_hub(run, tmp_path):
  """With the metrics of its checkpoint and the config, but no name of a directory."""
  _, workdir, result = run
  trained = mlpvision.load(workdir / "checkpoints" / str(result.step), ema=True)
  hub.to_folder(trained, tmp_path, ema=True)
  again = mlpvision.load(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again.variables, trained.variables)
  assert (again.preprocessing, again.class_names) == (trained.preprocessing, trained.class_names)
  card = (tmp_path / "README.md").read_text()
  assert f"- val/miou: {round(result.metrics['val/ema_miou'], 4)}\n" in card
  assert '"name": "digit_scenes"' in card
  assert "data_dir" not in card
  assert str(workdir) not in card
  assert 'pipeline_tag: "image-segmentation"' in card
