"""Mask targets and pasted masks against mmdetection's, and targets from crops against those from whole bitmaps."""

import pathlib

import jax
import numpy as np
import pytest

from mlpvision.data import host_masks
from mlpvision.models.detection import masks

_GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "data" / "masks.npz"))


@pytest.fixture(scope="module")
def objects():
  """(bitmaps [G, H, W], boxes [G, 4], proposals [n, 4], index [n]): ellipses with a hole, and jittered boxes."""
  rng = np.random.default_rng(0)
  height, width = 120, 160
  boxes = []
  for side in (12, 20, 35, 60, 110, 110):
    x1, y1 = rng.uniform(0, [width - side, height - side])
    boxes.append([x1, y1, x1 + side, y1 + side * rng.uniform(0.4, 1)])
  boxes = np.float32(boxes)
  x1, y1, x2, y2 = boxes.T[..., None, None]
  y, x = np.mgrid[:height, :width] + 0.5
  radius = np.hypot((2 * x - x1 - x2) / (x2 - x1), (2 * y - y1 - y2) / (y2 - y1))
  bitmaps = ((radius < 1) & (radius > 0.4)).astype(np.uint8)
  index = np.repeat(np.arange(len(boxes)), 10)
  sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)[index]
  proposals = boxes[index] + rng.normal(0, 0.12, sides.shape) * sides
  return bitmaps, boxes, np.float32(proposals.clip(0, [width, height, width, height])), index


def test_targets_of_bitmaps_are_mmdetections():
  names = ("gt_bitmaps", "mask_proposals", "mask_gt_index")
  found = jax.jit(masks.targets_from_bitmaps)(*(_GOLDEN[name] for name in names))
  assert np.mean(found != _GOLDEN["mask_targets"]) <= 1e-3


def test_targets_of_crops_are_nearly_those_of_bitmaps(objects):
  bitmaps, boxes, proposals, index = objects
  crops = np.stack([host_masks.crop(*pair) for pair in zip(bitmaps, boxes, strict=True)])
  assert (crops.shape, crops.dtype) == ((len(boxes), 56, 56), np.uint8)
  # A last object that is no more than padding.
  crops, boxes = np.append(crops, 0 * crops[:1], 0), np.append(boxes, 0 * boxes[:1], 0)
  proposals, index = np.append(proposals, proposals[:1], 0), np.append(index, len(boxes) - 1)
  found = np.asarray(jax.jit(masks.targets_from_crops)(crops, boxes, proposals, index))
  assert not found[-1].any()
  golden = np.asarray(jax.jit(masks.targets_from_bitmaps)(bitmaps, proposals[:-1], index[:-1]))
  assert 0.2 < golden.mean() < 0.8
  assert np.mean(found[:-1] != golden) < 0.01


def test_a_crop_is_soft_at_the_border_of_an_object_and_zero_for_an_empty_box():
  bitmap = np.zeros((10, 20), bool)
  bitmap[:, :10] = True
  found = host_masks.crop(bitmap, np.float32([0, 0, 20, 10]), 4)
  np.testing.assert_array_equal(found, [[255, 255, 0, 0]] * 4)
  found = host_masks.crop(bitmap, np.float32([9.5, 2, 11.5, 4]), 2)
  np.testing.assert_array_equal(found, [[128, 0]] * 2)
  assert not host_masks.crop(bitmap, np.float32([5, 5, 5, 9])).any()


def test_pasted_masks_are_mmdetections():
  logits = _GOLDEN["mask_logits"][np.arange(6), _GOLDEN["mask_labels"]]
  golden = np.unpackbits(_GOLDEN["pasted"], axis=-1, count=80).astype(bool)
  for i, probabilities in enumerate(1 / (1 + np.exp(-logits))):
    pasted = probabilities, _GOLDEN["mask_proposals"][i], 60, 80
    assert np.sum(host_masks.paste(*pasted) != golden[i]) <= 5
    values, top, left = host_masks.around_box(*pasted)
    image = np.zeros((60, 80))
    image[top : top + values.shape[0], left : left + values.shape[1]] = values
    np.testing.assert_allclose(image, _GOLDEN["pasted_probability"][i], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
  ("box", "pixels"),
  [
    ((3, 2, 13, 8), (slice(2, 8), slice(3, 13))),
    ((-30, 2, 5, 99), (slice(2, 10), slice(0, 5))),
    ((-9, -9, 90, 90), (slice(0, 10), slice(0, 20))),
    ((30, 2, 40, 8), None),
    ((-30, -30, -20, -20), None),
    ((5, 5, 5, 9), None),
  ],
)
def test_a_pasted_mask_is_cut_at_the_image(box, pixels):
  expected = np.zeros((10, 20), bool)
  if pixels:
    expected[pixels] = True
  np.testing.assert_array_equal(host_masks.paste(np.full((28, 28), 0.99), np.float32(box), 10, 20), expected)
