"""Anchors of all levels, which of them are valid, and what they are assigned, against mmdetection's."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from mlpvision.models.detection import anchors, assign

_GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "data" / "rpn_targets.npz"))
_SHAPES = tuple(map(tuple, _GOLDEN["level_shapes"].tolist()))
_STRIDES = (4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def levels():
  return [np.asarray(level) for level in jax.jit(lambda: anchors.per_level(_SHAPES, _STRIDES))()]


@functools.partial(jax.jit, static_argnames="border")
def _valid(levels, padded, size, border):
  return anchors.valid(levels, _SHAPES, _STRIDES, padded, size, border)


# Compiled as for a user: the older emitters of tests/conftest.py round two equal overlaps differently.
@functools.partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})
def _assigned(priors, is_valid, boxes, labels):
  options = dict(positive=0.7, negative=0.3, min_positive=0.3, low_quality=True)
  return assign.by_max_iou(priors, is_valid, boxes, labels, **options)[0]


def test_anchors_are_mmdetections(levels):
  assert [len(level) for level in levels] == _GOLDEN["anchors_per_level"].tolist()
  np.testing.assert_array_equal(np.concatenate(levels), _GOLDEN["anchors"])


def test_the_original_recipe_has_this_many():
  shapes = [(-(-1344 // stride), -(-800 // stride)) for stride in _STRIDES]
  levels = jax.eval_shape(lambda: anchors.per_level(shapes, _STRIDES))
  assert sum(level.shape[0] for level in levels) == 268_569


@pytest.mark.parametrize(("kind", "border"), [("rpn", -1), ("cascade", 0)])
def test_drawn_anchors_are_valid_and_assigned_as_mmdetections(levels, kind, border):
  """Of each image mmdetection drew 256 anchors, with their labels; fewer positives than 128 means that it took all."""
  for i in range(2):
    padding = ((0, 8 - len(_GOLDEN[f"{kind}_gt_labels_{i}"])), (0, 0))
    labels = np.pad(_GOLDEN[f"{kind}_gt_labels_{i}"], padding[0], constant_values=-1)
    boxes = np.pad(_GOLDEN[f"{kind}_gt_boxes_{i}"], padding)
    is_valid = _valid(levels, _GOLDEN["padded_shape"], _GOLDEN[f"{kind}_image_shape_{i}"], border=border)
    is_valid = np.concatenate(is_valid)
    assigned = np.asarray(_assigned(np.concatenate(levels), is_valid, boxes, labels))
    is_drawn = _GOLDEN[f"{kind}_sampled_label_weights"][i] > 0
    is_positive = is_drawn & (_GOLDEN[f"{kind}_sampled_labels_fg0_bg1"][i] == 0)
    np.testing.assert_array_equal(assigned >= 0, is_positive)
    assert (assigned[is_drawn & ~is_positive] == assign.BACKGROUND).all()
    assert is_valid.all() if border < 0 else not is_valid.all()


def test_only_cells_of_the_padded_image_count(levels):
  found = _valid(levels, np.array([96, 65]), np.array([90, 60]), border=-1)
  for is_valid, (rows, columns), stride in zip(found, _SHAPES, _STRIDES, strict=True):
    expected = np.zeros((rows, columns, 3), bool)
    expected[: -(-96 // stride), : -(-65 // stride)] = True
    np.testing.assert_array_equal(is_valid, expected.reshape(-1))


@pytest.mark.parametrize("border", [0, 9])
def test_anchors_may_reach_this_far_beyond_the_image(levels, border):
  found = np.concatenate(_valid(levels, np.array([128, 160]), np.array([100, 150]), border=border))
  x1, y1, x2, y2 = np.concatenate(levels).T
  expected = (x1 >= -border) & (y1 >= -border) & (x2 < 150 + border) & (y2 < 100 + border)
  np.testing.assert_array_equal(found, expected)
  assert 0 < expected.sum() < len(expected)
