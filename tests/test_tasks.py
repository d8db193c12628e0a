"""The task seam: another task, the segmentation of the quickstart's digits, goes through everything that runs have."""

import json
import shutil
import types

from flax import linen as nn
from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image
import pytest

import mlpvision
from mlpvision import augment, models, tasks
from mlpvision.data import crops, rows, transforms
from mlpvision.errors import UserError
from mlpvision.evaluate import run as run_lib
from mlpvision.models import cost
from mlpvision.training import loop, setup as setup_lib


class Digits(rows.Rows):
  """Rows {"image": uint8 [S, S, 3], "label": uint8 [S, S]}: 1 + the digit where there is ink, else 0."""

  def train(self, example, rng, split):
    image, affine = self.draw_crop(example["image"], rng)
    ink = (transforms.decode(example["image"])[..., 0] > 127).astype(np.uint8)
    return {"image": image, "label": crops.warp_map(ink, affine, len(image)) * np.uint8(1 + example["label"])}

  def evaluation(self, example, split):
    image = self.preprocess(transforms.open_image(example["image"]))
    return {"image": image, "label": (image[..., 0] > 127) * np.uint8(1 + example["label"])}

  def blank(self, split):
    size = self.config.data.image_size
    return {"image": np.zeros((size, size, 3), np.uint8), "label": np.zeros((size, size), np.uint8)}


class Segmenter(nn.Module):
  """A backbone's last feature map, a linear layer, enlarged: [B, H, W, 3] -> float32 [B, H, W, 1 + K]."""

  backbone: nn.Module
  num_classes: int

  @nn.compact
  def __call__(self, images, *, train=False):
    x = self.backbone(images, train=train, return_features=True)[-1].astype(jnp.float32)
    x = nn.Dense(1 + self.num_classes, name="head")(x)
    return jax.image.resize(x, (*images.shape[:3], x.shape[-1]), "bilinear")


def _augmented(key, batch, num_classes, config):
  images = augment.normalize(batch["image"], config.data.mean, config.data.std)
  return images, batch["label"].astype(jnp.int32)


def _loss(logits, targets, config):
  value = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
  return value, {"accuracy": (logits.argmax(-1) == targets).mean(dtype=jnp.float32)}


def _partial(logits, batch, loss, classes=None):
  k, labels = logits.shape[-1], batch["label"].astype(jnp.int32)
  counted = jnp.broadcast_to(batch["mask"][:, None, None], labels.shape)
  confusion = jnp.zeros((k * k,), jnp.int32).at[(labels * k + logits.argmax(-1)).ravel()].add(counted.ravel())
  return {"confusion": confusion.reshape(k, k), "images": batch["mask"].sum()}


def _scores(sums):
  counts = sums["confusion"]
  union = counts.sum(0) + counts.sum(1) - counts.diagonal()
  return {"miou": float((counts.diagonal()[union > 0] / union[union > 0]).mean())}


DIGITS = types.SimpleNamespace(
  METRICS={"miou": "max"},
  check=lambda config: None,
  batch_spec=lambda config: {
    "image": ((config.data.image_size, config.data.image_size, 3), jnp.uint8),
    "label": ((config.data.image_size, config.data.image_size), jnp.uint8),
  },
  make_model=lambda name, options, k: Segmenter(models.create(name, num_classes=None, **options), k),
  augmented=_augmented,
  loss=_loss,
  partial=_partial,
  scores=_scores,
  probabilities=lambda logits, loss: jax.nn.softmax(logits),
  predictions=lambda values, class_names, top: values.argmax(-1),
)


@pytest.fixture
def config(small_config, monkeypatch):
  monkeypatch.setitem(tasks.TASKS, "digits", DIGITS)
  monkeypatch.setitem(rows.ROWS, "digits", Digits)
  small_config.task, small_config.model.num_blocks, small_config.model.hidden_dim = "digits", 2, 32
  small_config.data.update(eval_split="test[:64]", workers=0)
  small_config.optim.update(learning_rate=0.01)
  small_config.checkpoint.update(best="val/miou", every="20 steps")
  small_config.update(duration="40 steps", ema_decay=0.9)
  return small_config


def test_segmentation_of_the_digits(config, tmp_path):
  """Trains, is evaluated by mIoU, checkpointed by it, resumed bit for bit, planned and predicted."""
  whole = loop.train_and_evaluate(config, tmp_path / "whole")
  assert whole.metrics["val/miou"] > 0.1  # with nothing but background it is 0.087
  assert {"val/miou", "val/ema_miou"} <= whole.metrics.keys()
  shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "40")
  resumed = loop.train_and_evaluate(config, tmp_path / "resumed")
  before, after = (flatten_dict(jax.device_get(result.state.params)) for result in (whole, resumed))
  assert all(np.array_equal(before[path], after[path]) for path in before)

  best = [tmp_path / "whole" / "checkpoints" / step / "metrics" / "metrics" for step in ("20", "40")]
  assert [json.loads(path.read_text()) for path in best if path.exists()] == [{"val/miou": whole.metrics["val/miou"]}]
  found = run_lib.evaluate(tmp_path / "whole")
  assert found["miou"] == pytest.approx(whole.metrics["val/miou"], abs=1e-3)

  digit = Image.fromarray(np.pad(np.full((16, 4), 255, np.uint8), ((6, 6), (12, 12))))  # a one
  (labels,) = mlpvision.load(tmp_path / "whole").predict(digit)
  assert labels.shape == (28, 28)
  assert (labels[0] == 0).all()

  parts = setup_lib.make_parts(config, num_images=4000, num_classes=10)
  lowered = setup_lib.lower_step(parts)
  assert "40x28x28xui8" in lowered.as_text()  # the label maps
  assert cost.allocated(cost.memory(lowered.compile())) > parts.config.data.batch_size * 28 * 28


def test_tasks_have_both_halves_and_an_unknown_one_is_refused(small_config, tmp_path):
  assert tasks.TASKS.keys() == rows.ROWS.keys()
  small_config.task = "detect"
  with pytest.raises(UserError, match="task='detect'.*classification"):
    loop.train_and_evaluate(small_config, tmp_path)


def test_a_batch_of_the_loader_is_as_the_task_says(small_config, data_dir):
  from mlpvision.data import datasets, loader

  split = datasets.open_split("mnist5k", "train[:100]", str(data_dir))
  batch = next(loader.train_batches(split, small_config, start_step=0))
  spec = tasks.batch_spec(small_config)
  assert {key: (x.shape[1:], x.dtype) for key, x in batch.items()} == spec
  random = tasks.random_batch(small_config, 10)
  assert {key: (x.shape, x.dtype) for key, x in random.items()} == {key: (x.shape, x.dtype) for key, x in batch.items()}
