"""The numbers behind the pictures, and that the figures show them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from docs.tools import models_page, published
from mlpvision import models, preprocessing, tasks, trained as trained_lib
from mlpvision.data import datasets
from mlpvision.draw import figures, maps
from mlpvision.evaluate import confusion
from mlpvision.reporting import confusion as confusion_figure
from mlpvision.reporting.curves import to_png, to_svg


@functools.cache
def _model():
  model = models.create("s2mlp_wide", num_classes=4, num_blocks=2, hidden_dim=16, patch_size=4)
  return model, _params(model, 28)


def _params(model, size):
  """Random parameters, without compiling anything."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))["params"]
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), shapes)


@pytest.mark.parametrize(
  ("directions", "rows", "columns"),
  [("up", (3, 6), (3, 4)), ("left_right", (3, 4), (1, 6))],
)
def test_receptive_field_is_where_the_shifts_reach(directions, rows, columns):
  """In patches [from, to): two blocks move everything by up to two patches, "up" from below."""
  model, params = _model()
  images = np.random.default_rng(1).normal(size=(2, 28, 28, 3)).astype(np.float32)
  field = maps.receptive_field(model.clone(directions=directions), params, images)
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
  model, params = _model()
  kernel = params["stem"]["kernel"].at[2:].set(0.0)  # ignores the lower half of each patch
  params = params | {"stem": params["stem"] | {"kernel": kernel}}
  heat = maps.saliency(model, params, np.random.default_rng(0).random((28, 28, 3), np.float32), 1)
  lower = np.arange(28) % 4 >= 2
  assert heat[lower].max() == 0
  assert heat[~lower].min() > 0


def test_feature_colors_are_one_per_stage():
  model = models.create("asmlp_tiny", num_classes=4, hidden_dim=8, depths=(1, 1))
  image = np.random.default_rng(0).random((32, 32, 3), np.float32)
  colors = maps.feature_colors(model, _params(model, 32), image)
  assert [c.shape for c in colors] == [(8, 8, 3), (4, 4, 3)]
  assert all(c.min() == 0 and c.max() == 1 for c in colors)
  assert to_png(figures.features(image, colors, model.feature_strides)).startswith(b"\x89PNG")
  first, again = (to_svg(figures.features(image, colors, model.feature_strides)) for _ in range(2))
  assert first == again


def test_all_published_rows_are_drawn():
  keys = {(row.name, row.image_size): {"parameters": 1e7, "macs": 1e9} for row in published.ROWS}
  axes = models_page.draw(keys).axes
  drawn = sum(len(line.get_xdata()) for line in axes[0].get_lines())
  assert drawn == sum(bool(row.top1) and "Pre-trained" not in row.note for row in published.ROWS)


def test_confusion_counts_every_image_under_its_classes(small_config, data_dir):
  small_config.data.eval_split, small_config.eval.batch_size = "test[:100]", 32  # which does not divide 100
  split = datasets.open_split("mnist5k", "test[:100]", str(data_dir))
  model = tasks.make_model(small_config, 10)
  view = preprocessing.of_config(small_config)
  params = _params(model, 28)
  trained = trained_lib.Trained(model, {"params": params}, view, split.class_names, "s2mlp_wide", small_config, 0)
  examples = [split.source[i] for i in range(100)]
  images = np.stack([trained.preprocess(example["image"]) for example in examples])
  apply = jax.jit(model.apply)
  params["head"]["bias"] -= apply({"params": params}, images).mean(0)  # so that no class wins for all images
  found = apply({"params": params}, images).argmax(-1)
  expected = np.zeros((10, 10), int)
  np.add.at(expected, ([example["label"] for example in examples], np.asarray(found)), 1)
  np.testing.assert_array_equal(confusion.count(trained, split), expected)
  assert len(set(found.tolist())) > 1


def test_a_missing_picture_is_said(here, tmp_path):
  code, output = here("-m", "mlpvision.draw", "saliency", "--weights=run", f"--output={tmp_path / 'c.png'}")
  assert code != 0
  assert "saliency takes one picture" in output


def test_a_long_title_stays_in_the_picture():
  title = f"folder:/home/somebody/{'pictures/' * 6}:train[90%:]: top-1 91.25% of 1,234 images"
  figure = confusion_figure.figure(np.eye(2, dtype=np.int64), ("cat", "cup"), title)
  figure.canvas.draw()
  found = next(text for text in figure.findobj(lambda part: getattr(part, "get_text", str)().startswith("folder:")))
  box = found.get_window_extent()
  assert box.x0 > 0
  assert box.x1 < figure.bbox.width
  assert figure.axes[0].get_window_extent().y1 < box.y0


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 4), (5, 5), (6, 3), (8, 4)])
def test_no_cell_of_a_grid_is_empty(count, columns):
  field = np.ones((8, 8)) / 64
  figure = figures.receptive_fields({str(i): field for i in range(count)})
  panels = [axes for axes in figure.axes if axes.get_title()]
  assert len(panels) == count
  assert panels[0].get_gridspec().ncols == columns
  assert all(axes.get_visible() for axes in figure.axes)
