"""Mask R-CNN and Cascade Mask R-CNN against mmdetection's outputs, losses and gradients, and their published sizes."""

import functools
import pathlib
import re

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models
from mlpvision.data import host_masks
from mlpvision.models import cost
from mlpvision.models.detection import names, rpn, two_stage

_DATA = pathlib.Path(__file__).parents[1] / "data"
_OBJECTS, _PROPOSALS = 8, 64  # slots, more than there are


@pytest.fixture(scope="module", params=["mask_rcnn", "cascade_mask_rcnn"])
def case(request):
  """(golden, detector, variables, maps, sizes)."""
  golden = dict(np.load(_DATA / f"{request.param}.npz"))
  flat = {}
  for name, array in golden.items():
    if name.startswith(("neck.", "rpn_head.", "roi_head.")):
      path, load = names.TABLE.ours(name)
      collection = "batch_stats" if path.endswith(("/mean", "/var")) else "params"
      flat[f"{collection}/{path}"] = jnp.asarray(load(array))
  options = dict(train_proposals=60, test_proposals=60, pre_nms=(300, 300), detections=30, rpn_samples=20_000)
  detector = models.create(
    request.param, backbone="asmlp_tiny", num_classes=5, channels=8, head_dim=24, **options
  )  # fmt: skip
  maps = [jnp.asarray(golden[f"feature_{i}"].transpose(0, 2, 3, 1)) for i in range(4)]
  sizes = jnp.asarray(np.stack([golden["image_shape_0"], golden["image_shape_1"]]), jnp.int32)
  return golden, detector, unflatten_dict(flat, sep="/"), maps, sizes


def _padded(golden, name, slots, fill=0):
  pairs = (golden[f"{name}_{i}"] for i in range(2))
  return jnp.stack(
    [np.pad(a, [(0, slots - len(a)), *[(0, 0)] * (a.ndim - 1)], constant_values=fill) for a in pairs]
  )  # fmt: skip


def test_detections_are_mmdetections(case):
  golden, detector, variables, maps, sizes = case

  def run(model, maps):
    return model.detect(model.neck(maps, model.cells(sizes)[:4]), sizes)

  with jax.default_matmul_precision("highest"):
    found = jax.jit(functools.partial(detector.apply, method=run))(variables, maps)
  found = jax.device_get(found)
  for i in range(2):
    scale = np.tile(golden[f"scale_factor_wh_{i}"], 2).astype(np.float32)
    boxes, (height, width) = found.boxes[i] / scale, golden[f"original_shape_{i}"]
    assert np.array_equal(found.labels[i], golden[f"det_labels_{i}"])
    assert np.abs(boxes - golden[f"det_boxes_{i}"]).max() < 1e-3
    assert np.abs(found.scores[i] - golden[f"det_scores_{i}"]).max() < 1e-5
    masks = np.unpackbits(golden[f"det_masks_packed_{i}"], axis=-1, count=width).astype(bool)
    for box, mask, expected in zip(boxes, found.masks[i], masks, strict=True):
      assert (host_masks.paste(mask, box, height, width) != expected).sum() <= 2


def test_losses_and_gradients_are_mmdetections(case):
  golden, detector, variables, maps, sizes = case
  bitmaps = {f"bitmaps_{i}": np.unpackbits(golden[f"gt_masks_packed_{i}"], axis=-1, count=160) for i in range(2)}
  objects = {
    "boxes": _padded(golden, "gt_boxes", _OBJECTS),
    "labels": _padded(golden, "gt_labels", _OBJECTS, -1),
    "bitmaps": _padded(bitmaps, "bitmaps", _OBJECTS),
  }
  counts = jnp.array([[len(golden[f"train_proposals_{i}"])] for i in range(2)])
  proposals = rpn.Proposals(_padded(golden, "train_proposals", _PROPOSALS), jnp.arange(_PROPOSALS) < counts)

  def run(model, maps):
    return model.losses(model.neck(maps, model.cells(sizes)[:4]), sizes, objects, proposals)

  def total(maps):
    rngs = {"dropout": jax.random.key(0)}
    found, _ = detector.apply(variables, maps, method=run, rngs=rngs, mutable=["batch_stats"])
    means = two_stage.means(found.sums, found.counts)
    return sum(means.values()), (means, found)

  with jax.default_matmul_precision("highest"):
    (_, (means, found)), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(maps)
  expected = {
    name.removeprefix("loss."): float(np.ravel(array)[0]) for name, array in golden.items() if name.startswith("loss.")
  }
  accuracies = {name: expected.pop(name) / 100 for name in list(expected) if name.endswith("acc")}
  assert means.keys() == expected.keys()
  for name, value in means.items():
    assert float(value) == pytest.approx(expected[name], rel=2e-6)
  for name, value in accuracies.items():
    stage = name.removesuffix("acc")
    assert float(found.correct[f"{stage}accuracy"] / found.counts[f"{stage}roi"]) == pytest.approx(value, rel=1e-6)
  for i, gradient in enumerate(gradients):
    expected = golden[f"grad_feature_{i}"].transpose(0, 2, 3, 1)
    assert np.abs(gradient - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
  ("name", "backbone", "parameters", "gmacs"),
  [
    ("mask_rcnn", "asmlp_tiny", 47_788_944, 260.5),
    pytest.param("mask_rcnn", "asmlp_small", 69_100_944, 345.7, marks=pytest.mark.slow),
    ("cascade_mask_rcnn", "asmlp_tiny", 85_624_146, 739.3),
    pytest.param("cascade_mask_rcnn", "asmlp_small", 106_936_146, 824.6, marks=pytest.mark.slow),
    pytest.param("cascade_mask_rcnn", "asmlp_base", 144_961_586, 960.8, marks=pytest.mark.slow),
  ],
)
def test_sizes_are_those_of_the_papers_table(name, backbone, parameters, gmacs):
  """mmcv's counter also has biases and norms, hence the difference."""
  counted = cost.count(models.create(name, backbone=backbone, num_classes=80), (800, 1280))
  assert counted["parameters"] == parameters
  assert counted["macs"] == pytest.approx(gmacs * 1e9, rel=5e-3)


_SMALL = dict(num_classes=3, channels=8, head_dim=16, train_proposals=20, test_proposals=20, pre_nms=(40, 40))
_SMALL |= dict(hidden_dim=8, depths=(1, 1, 1, 1), detections=10, score_threshold=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), [("mask_rcnn", "asmlp_tiny"), ("cascade_mask_rcnn", "swin_tiny")])
def test_an_image_alone_and_in_a_canvas_has_the_same_detections(name, backbone):
  options = _SMALL | (dict(num_heads=(1, 1, 1, 1)) if backbone == "swin_tiny" else {})
  detector, rng = models.create(name, backbone=backbone, **options), np.random.default_rng(0)

  def weights(path, leaf):
    if path.endswith(("scale", "var")):
      return jnp.ones(leaf.shape)
    fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 4
    return jnp.asarray(rng.normal(0, fan_in**-0.5, leaf.shape), jnp.float32)

  shapes = jax.eval_shape(detector.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  variables = unflatten_dict(
    {path: weights(path, leaf) for path, leaf in flatten_dict(shapes, sep="/").items()}, sep="/"
  )  # fmt: skip
  image = rng.normal(size=(1, 75, 90, 3)).astype(np.float32)
  apply, size = jax.jit(lambda images: detector.apply(variables, images, sizes=jnp.array([[75, 90]]))), (75, 90)
  found = [apply(np.pad(image, ((0, 0), (0, h - size[0]), (0, w - size[1]), (0, 0)))) for h, w in ((96, 96), (96, 128))]
  alone, inside = found
  assert np.array_equal(alone.labels, inside.labels)
  assert (alone.labels >= 0).sum() > 3
  for a, b in zip(alone, inside, strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4)


def test_names_in_files_are_unique_and_complete():
  shapes = {}
  for name in ("mask_rcnn", "cascade_mask_rcnn"):
    detector = models.create(name, backbone="asmlp_tiny", **_SMALL)
    found = jax.eval_shape(detector.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    paths = [p for tree in found.values() for p in flatten_dict(tree, sep="/") if not p.startswith("backbone/")]
    theirs = [names.TABLE.theirs(path)[0] for path in paths]
    assert len(set(theirs)) == len(paths)
    shapes[name] = {re.sub(r"\d+", "0", name) for name in theirs}
  assert {"roi_head.mask_head.0.upsample.weight", "neck.fpn_convs.0.conv.bias"} <= shapes["cascade_mask_rcnn"]
