"""Non-maximum suppression against mmcv's kernels, mmdetection's detections of all classes, and a loop over boxes."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from mlpvision.models.detection import nms

_GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "data" / "nms.npz"))
_SLOTS = 100
_NMS, _BATCHED = jax.jit(nms.nms), jax.jit(nms.batched_nms)
_MULTICLASS = jax.jit(functools.partial(nms.multiclass_nms, score_threshold=0.05, iou_threshold=0.5, count=20))


def _padded(array):
  """In 100 slots; those behind hold good boxes, which must not count."""
  padding = np.ones((_SLOTS - len(array), *array.shape[1:]), array.dtype)
  return np.concatenate([array, padding]), np.arange(_SLOTS) < len(array)


def _ranked(kept, scores):
  """Indices of kept boxes, best first, then by index."""
  index = np.flatnonzero(kept)
  return index[np.argsort(-scores[index], kind="stable")]


def _by_loop(boxes, scores, threshold):
  """Indices that greedy suppression keeps, best first, in float32."""
  kept = []
  areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
  for i in np.argsort(-scores, kind="stable"):
    others = boxes[kept].reshape(-1, 4)
    sides = np.minimum(others[:, 2:], boxes[i, 2:]) - np.maximum(others[:, :2], boxes[i, :2])
    inter = np.maximum(sides, 0).prod(axis=1)
    union = areas[kept] + areas[i] - inter if kept else inter
    iou = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    if not (iou > np.float32(threshold)).any():
      kept.append(i)
  return kept


def _boxes_on_a_grid(rng, number):
  """Boxes whose IoUs are often equal, at thresholds or of empty boxes, and few different scores."""
  corners = rng.integers(0, 8, [number, 2])
  boxes = np.concatenate([corners, corners + rng.integers(0, 7, corners.shape)], axis=1)
  return boxes.astype(np.float32), (rng.integers(1, 20, number) / 20).astype(np.float32)


def _padded_grid(rng, number):
  boxes, scores = _boxes_on_a_grid(rng, number)
  boxes, is_valid = _padded(boxes)
  return boxes, _padded(scores)[0], is_valid


@pytest.mark.parametrize(("threshold", "name"), [(0.7, "keep_07"), (0.5, "keep_05")])
def test_kept_boxes_are_mmcvs(threshold, name):
  boxes, is_valid = _padded(_GOLDEN["boxes"])
  scores, _ = _padded(_GOLDEN["scores"])
  np.testing.assert_array_equal(_ranked(_NMS(boxes, scores, threshold, is_valid), scores), _GOLDEN[name])


def test_kept_boxes_within_classes_are_mmcvs():
  boxes, is_valid = _padded(_GOLDEN["boxes"])
  scores, groups = _padded(_GOLDEN["scores"])[0], _padded(_GOLDEN["class_ids"])[0]
  found = _ranked(_BATCHED(boxes, scores, groups, 0.5, is_valid), scores)
  np.testing.assert_array_equal(found, _GOLDEN["batched_keep"])
  np.testing.assert_array_equal(boxes[found], _GOLDEN["batched_dets"][:, :4])


def test_of_equal_scores_the_same_boxes_stay():
  boxes, is_valid = _padded(_GOLDEN["tie_boxes"])
  scores, _ = _padded(_GOLDEN["tie_scores"])
  found = np.flatnonzero(_NMS(boxes, scores, 0.5, is_valid))
  assert set(map(tuple, boxes[found])) == set(map(tuple, _GOLDEN["tie_dets_set"][:, :4]))
  assert len(found) == len(_GOLDEN["tie_dets_set"])


def test_detections_are_mmdetections():
  boxes, is_valid = _padded(_GOLDEN["multi_boxes"])
  scores, _ = _padded(_GOLDEN["multi_scores"][:, :-1])
  found, found_scores, labels = _MULTICLASS(boxes, scores, is_valid)
  np.testing.assert_array_equal(found, _GOLDEN["multi_dets"][:, :4])
  np.testing.assert_array_equal(found_scores, _GOLDEN["multi_dets"][:, 4])
  np.testing.assert_array_equal(labels, _GOLDEN["multi_labels"])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_many_ties_are_as_in_a_loop(threshold):
  rng = np.random.default_rng(0)
  for number in (0, 1, 10, 50, 100):
    boxes, scores, is_valid = _padded_grid(rng, number)
    found = _ranked(_NMS(boxes, scores, threshold, is_valid), scores)
    np.testing.assert_array_equal(found, _by_loop(boxes[:number], scores[:number], threshold))


def test_images_of_a_batch_settle_on_their_own():
  rng = np.random.default_rng(3)
  rows = [_padded_grid(rng, number) for number in (0, 100, 7)]
  batch = [np.stack(x) for x in zip(*rows, strict=True)]
  found = jax.jit(jax.vmap(nms.nms, in_axes=(0, 0, None, 0)))(*batch[:2], 0.5, batch[2])
  for row, kept in zip(rows, found, strict=True):
    np.testing.assert_array_equal(kept, _NMS(*row[:2], 0.5, row[2]))


def test_a_chain_takes_as_many_rounds_as_it_has_boxes():
  boxes = np.stack([[i, 0, i + 4, 4] for i in range(_SLOTS)]).astype(np.float32)
  scores = np.linspace(1, 0.1, _SLOTS).astype(np.float32)
  found = _ranked(_NMS(boxes, scores, 0.5, np.ones(_SLOTS, bool)), scores)
  np.testing.assert_array_equal(found, np.arange(0, _SLOTS, 2))


def test_detections_are_as_in_a_loop_over_classes():
  rng = np.random.default_rng(1)
  for number in (0, 3, 100):
    per_class = [_boxes_on_a_grid(rng, number) for _ in range(5)]
    scores = np.stack([scores for _, scores in per_class], axis=1)
    (slots, is_valid), (slot_scores, _) = _padded(np.concatenate([b for b, _ in per_class], axis=1)), _padded(scores)
    expected = []
    for label, (boxes, column) in enumerate(per_class):
      rows = np.flatnonzero(column > np.float32(0.05))  # the least score is exactly the threshold, and out
      for i in _by_loop(boxes[rows], column[rows], 0.5):
        expected.append((-column[rows[i]], rows[i], label, *boxes[rows[i]]))
    expected = sorted(expected)[:20]
    found, found_scores, labels = map(np.asarray, _MULTICLASS(slots, slot_scores, is_valid))
    assert labels.tolist() == [row[2] for row in expected] + [-1] * (20 - len(expected))
    assert found_scores.tolist() == [-row[0] for row in expected] + [0] * (20 - len(expected))
    np.testing.assert_array_equal(found[: len(expected)], np.array([row[3:] for row in expected]).reshape(-1, 4))
    assert not found[len(expected) :].any()


def test_levels_do_not_suppress_each_other():
  rng = np.random.default_rng(2)
  rows = [_boxes_on_a_grid(rng, _SLOTS) for _ in range(3)]
  boxes, scores = np.stack([boxes for boxes, _ in rows]), np.stack([scores for _, scores in rows])
  is_valid = rng.random(scores.shape) < 0.8
  is_valid[2] = False
  groups = np.broadcast_to(np.arange(3)[:, None], scores.shape)
  found = np.asarray(_BATCHED(boxes, scores, groups, 0.7, is_valid))
  mixed = _BATCHED(*(x.reshape(-1, *x.shape[2:]) for x in (boxes, scores, groups)), 0.7, is_valid.reshape(-1))
  np.testing.assert_array_equal(found.reshape(-1), mixed)
  for i in range(2):
    index = np.flatnonzero(is_valid[i])
    expected = index[_by_loop(boxes[i, index], scores[i, index], 0.7)]
    np.testing.assert_array_equal(_ranked(found[i], scores[i]), expected)
  assert not found[2].any()
