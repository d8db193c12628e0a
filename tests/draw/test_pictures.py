"""The numbers behind the pictures, and that the command draws them."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from docs.tools import models_page, published
from mlpvision import models
from mlpvision.draw import figures, maps
from mlpvision.reporting.curves import to_png


def _model(**options):
  model = models.create("s2mlp_wide", num_classes=4, num_blocks=2, hidden_dim=16, patch_size=4, **options)
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))["params"]
  return model, params


@pytest.mark.parametrize(
  ("directions", "rows", "columns"),
  [("none", (3, 4), (3, 4)), ("up", (3, 6), (3, 4)), ("left_right", (3, 4), (1, 6)), ("four", (1, 6), (1, 6))],
)
def test_receptive_field_is_where_the_shifts_reach(directions, rows, columns):
  """In patches [from, to): two blocks move everything by up to two patches, "up" from below."""
  images = jax.random.normal(jax.random.key(1), (2, 28, 28, 3))
  field = maps.receptive_field(*_model(directions=directions), images)
  assert field.sum() == pytest.approx(1.0)
  patches = field.reshape(7, 4, 7, 4).sum((1, 3))
  reached = np.argwhere(patches > 0)
  assert (reached.min(0).tolist(), (reached.max(0) + 1).tolist()) == ([rows[0], columns[0]], [rows[1], columns[1]])


def test_radius_holds_its_share():
  field = np.zeros((9, 9))
  field[4, 4], field[2, 4] = 0.6, 0.4
  assert [maps.radius(field, share) for share in (0.5, 0.7)] == [1, 5]


def test_saliency_is_where_the_class_looks():
  """The gradient is zero exactly where the model does not look."""
  model, params = _model(directions="none")
  params["stem"]["kernel"] = params["stem"]["kernel"].at[2:].set(0.0)  # the lower half of each patch is not looked at
  heat = maps.saliency(model, params, np.random.default_rng(0).random((28, 28, 3), np.float32), 1)
  lower = np.arange(28) % 4 >= 2
  assert heat[lower].max() == 0
  assert heat[~lower].min() > 0


def test_feature_colours_are_one_per_stage():
  model = models.create("asmlp_tiny", num_classes=4, hidden_dim=8, depths=(1, 1))
  image = np.random.default_rng(0).random((32, 32, 3), np.float32)
  params = jax.jit(model.init)(jax.random.key(0), image[None])["params"]
  colours = maps.feature_colours(model, params, image)
  assert [c.shape for c in colours] == [(8, 8, 3), (4, 4, 3)]
  assert all(c.min() == 0 and c.max() == 1 for c in colours)
  assert to_png(figures.features(image, colours, model.feature_strides)).startswith(b"\x89PNG")


def test_all_published_rows_are_drawn():
  keys = {(row.name, row.image_size): {"parameters": 1e7, "macs": 1e9} for row in published.ROWS}
  axes = models_page.draw(keys).axes
  drawn = sum(len(line.get_xdata()) for line in axes[0].get_lines())
  assert drawn == sum(bool(row.top1) and "Pre-trained" not in row.note for row in published.ROWS)


def test_confusion_counts_and_the_command(command, small_config, data_dir, tmp_path):
  from mlpvision import trained as trained_lib
  from mlpvision.data import datasets
  from mlpvision.evaluate import confusion
  from mlpvision.training import loop

  small_config.duration, small_config.data.eval_split = "10 steps", "test[:100]"
  small_config.eval.batch_size = 32  # which does not divide 100
  result = loop.train_and_evaluate(small_config, tmp_path / "run")
  split = datasets.open_split("mnist5k", "test[:100]", str(data_dir))
  counts = confusion.count(trained_lib.load(tmp_path / "run"), split)
  assert counts.sum() == 100
  assert counts.trace() / 100 == pytest.approx(result.metrics["val/top1"])
  labels = [int(split.source[i]["label"]) for i in range(100)]
  np.testing.assert_array_equal(counts.sum(1), np.bincount(labels, minlength=10))

  flags = (f"--weights={tmp_path / 'run'}", f"--output={tmp_path / 'c.png'}")
  code, output = command("-m", "mlpvision.draw", "confusion", *flags)
  assert code == 0, output
  Image.open(tmp_path / "c.png").verify()
  code, output = command("-m", "mlpvision.draw", "saliency", *flags)
  assert code != 0
  assert "saliency takes one picture" in output


def test_a_long_title_stays_in_the_picture():
  title = f"folder:/home/somebody/{'pictures/' * 6}:train[90%:]: top-1 91.25% of 1,234 images"
  figure = figures.confusion(np.eye(2, dtype=np.int64), ("cat", "cup"), title)
  figure.canvas.draw()
  found = next(text for text in figure.findobj(lambda part: getattr(part, "get_text", str)().startswith("folder:")))
  box = found.get_window_extent()
  assert box.x0 > 0
  assert box.x1 < figure.bbox.width
  assert figure.axes[0].get_window_extent().y1 < box.y0
