"""Which object an anchor or proposal belongs to, against mmdetection's assigner and a loop over objects."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from mlpvision.models.detection import assign

_GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "data" / "assign.npz"))
_SLOTS, _OBJECTS = 102, 100
_STAGES = {
  "rpn": dict(positive=0.7, negative=0.3, min_positive=0.3, low_quality=True),
  "rcnn": dict(positive=0.5, negative=0.5, min_positive=0.5, low_quality=True),
  "cascade2": dict(positive=0.6, negative=0.6, min_positive=0.6, low_quality=False),
}


@functools.cache
def _compiled(stage):
  return jax.jit(functools.partial(assign.by_max_iou, **_STAGES[stage]))


def _assigned(stage, priors, is_valid, gts):
  """(assigned, overlaps), with the objects padded: at odd slots there is none, until there are more than half."""
  slots = np.arange(len(gts)) * (2 if len(gts) <= _OBJECTS // 2 else 1)
  boxes, labels = np.full((_OBJECTS, 4), 7, np.float32), np.full(_OBJECTS, -1)
  boxes[slots], labels[slots] = gts, 3
  # Padding that overlaps everything must not count.
  boxes[labels < 0] = [0, 0, 1000, 1000]
  found, overlaps = map(np.asarray, _compiled(stage)(priors, is_valid, boxes, labels))
  assert (found.dtype, overlaps.dtype) == (np.int32, np.float32)
  assert set(found[found >= 0]) <= set(slots)
  return np.where(found >= 0, found // (2 if len(gts) <= _OBJECTS // 2 else 1), found), overlaps


def _by_loop(priors, is_valid, gts, *, positive, negative, min_positive, low_quality):
  """Over objects, as the original; all in float32."""
  found, rows = np.full(len(priors), -2), np.flatnonzero(is_valid)
  if not len(gts):
    found[rows] = -1
    return found
  p, g = priors[rows][:, None], gts[None]
  sides = np.maximum(np.minimum(p[..., 2:], g[..., 2:]) - np.maximum(p[..., :2], g[..., :2]), 0)
  inter = sides.prod(axis=-1, dtype=np.float32)
  union = (p[..., 2:] - p[..., :2]).prod(axis=-1) + (g[..., 2:] - g[..., :2]).prod(axis=-1) - inter
  iou = inter / np.maximum(union, np.float32(1e-6))
  local = np.full(len(rows), -2)
  for i in range(len(rows)):
    if iou[i].max() < np.float32(negative):
      local[i] = -1
    if iou[i].max() >= np.float32(positive):
      local[i] = iou[i].argmax()
  for j in range(len(gts) if low_quality and len(rows) else 0):
    if iou[:, j].max() >= np.float32(min_positive):
      local[iou[:, j] == iou[:, j].max()] = j
  found[rows] = local
  return found


@pytest.mark.parametrize("stage", _STAGES)
def test_assignment_is_mmdetections(stage):
  priors, is_valid = _GOLDEN[f"{stage}_priors"], np.ones(_SLOTS, bool)
  found, overlaps = _assigned(stage, priors, is_valid, _GOLDEN[f"{stage}_gts"])
  np.testing.assert_array_equal(found, _GOLDEN[f"{stage}_assigned"])
  np.testing.assert_allclose(overlaps, _GOLDEN[f"{stage}_max_overlaps"], rtol=1e-6)
  found, overlaps = _assigned(stage, priors, is_valid, np.zeros((0, 4)))
  np.testing.assert_array_equal(found, _GOLDEN[f"{stage}_assigned_no_gt"])
  assert not overlaps.any()


@pytest.mark.parametrize("stage", _STAGES)
def test_many_ties_are_as_in_a_loop(stage):
  """Boxes on a coarse grid: IoUs are often exactly equal, and exactly at thresholds."""
  rng = np.random.default_rng(0)
  for count in (0, 1, 5, 20, 60, 100):
    for valid_share in (0, 0.6, 1):
      corners = rng.integers(0, 6, [_SLOTS + count, 2])
      boxes = np.concatenate([corners, corners + rng.integers(0, 6, corners.shape)], axis=1).astype(np.float32)
      priors, gts, is_valid = boxes[:_SLOTS], boxes[_SLOTS:], rng.random(_SLOTS) < valid_share
      found, _ = _assigned(stage, priors, is_valid, gts)
      np.testing.assert_array_equal(found, _by_loop(priors, is_valid, gts, **_STAGES[stage]))


def test_no_slots_for_objects():
  found, overlaps = assign.by_max_iou(
    np.ones((3, 4)), np.array([True, False, True]), np.zeros((0, 4)), np.zeros(0, int), **_STAGES["rpn"]
  )
  assert found.tolist() == [-1, -2, -1]
  assert not overlaps.any()
