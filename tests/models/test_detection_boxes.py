"""Overlaps, encoding and decoding of boxes against mmdetection's."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision.models.detection import boxes

_DATA = pathlib.Path(__file__).parents[1] / "data"
_CODER = dict(np.load(_DATA / "coder.npz"))
_IOU, _GIOU = jax.jit(boxes.iou), jax.jit(boxes.giou)
_DECODE = jax.jit(boxes.decode)
_ENCODE = jax.jit(boxes.encode)


def _assert_close(found, expected):
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("stds", "name"), [((1, 1, 1, 1), "encoded_stds_1"), (_CODER["stds"], "encoded_stds_1122")])
def test_encoding_is_mmdetections(stds, name):
  _assert_close(_ENCODE(_CODER["proposals"], _CODER["gts"], np.float32(stds)), _CODER[name])


@pytest.mark.parametrize(("size", "name"), [(None, "decoded_no_clip"), (_CODER["clip_shape"], "decoded_clip")])
def test_decoding_of_all_classes_is_mmdetections(size, name):
  found = _DECODE(_CODER["proposals"], _CODER["deltas"], np.float32(_CODER["stds"]), size)
  _assert_close(found, _CODER[name])


def test_decoding_undoes_encoding():
  encoded = _ENCODE(_CODER["proposals"], _CODER["gts"], np.float32(_CODER["stds"]))
  found = _DECODE(_CODER["proposals"], encoded, np.float32(_CODER["stds"]), None)
  _assert_close(found, _CODER["decode_of_encode"])


def test_giou_loss_of_decoded_boxes_is_mmdetections():
  golden = dict(np.load(_DATA / "giou.npz"))
  labels, weights = golden["labels"], golden["box_weights"].mean(axis=1)
  deltas = golden["conv4fc1_train_reg"].reshape(len(labels), -1, 4)
  deltas = deltas[np.arange(len(labels)), np.minimum(labels, deltas.shape[1] - 1)]
  decoded = _DECODE(golden["rois"][:, 1:], deltas, np.float32([0.05, 0.05, 0.1, 0.1]), None)  # the second stage's
  losses = 1 - _GIOU(decoded, golden["conv4fc1_targets"])
  np.testing.assert_allclose(10 * (losses * weights).sum() / len(labels), golden["conv4fc1_loss_bbox"], rtol=1e-5)


def test_overlaps():
  a = np.float32([[0, 0, 4, 4], [1, 1, 1, 1], [20, 0, 24, 2]])
  b = np.float32([[0, 0, 4, 4], [2, 0, 6, 4], [1, 1, 1, 1], [30, 30, 31, 31]])
  np.testing.assert_allclose(_IOU(a, b), [[1, 8 / 24, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], rtol=1e-6)
  # Apart by a gap of 4 in an enclosing 12 x 4; equal; both empty; inside the other.
  a = np.float32([[0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 1, 1], [0, 0, 4, 4]])
  b = np.float32([[8, 0, 12, 4], [0, 0, 4, 4], [1, 1, 1, 1], [1, 1, 3, 3]])
  np.testing.assert_allclose(_GIOU(a, b), [-16 / 48, 1, 0, 0.25], rtol=1e-6)


def test_decisions_are_in_float32():
  deltas = _CODER["deltas"].astype(jnp.bfloat16)
  found = np.asarray(_DECODE(_CODER["proposals"], deltas, np.float32(_CODER["stds"]), _CODER["clip_shape"]))
  assert found.dtype == np.float32
  assert found.min() >= 0
  assert found[:, 2::4].max() == 111
  assert found[:, 3::4].max() == 90
