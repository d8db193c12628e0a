"""COCO's figures: pycocotools' own numbers, and the way from a model's outputs to them."""

import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parent / "input"))

import coco

from mlpvision.data import datasets, host_masks, rle
from mlpvision.errors import UserError
from mlpvision.evaluate import average_precision, coco_scores, evaluators
from mlpvision.tasks import detection

_GOLDEN = dict(np.load(pathlib.Path(__file__).parent / "data" / "coco_ap.npz"))


def _golden(name):
  return json.loads(_GOLDEN[name].tobytes())


@pytest.fixture(scope="module")
def scores():
  truth = coco_scores.of_content(_golden("ground_truth_json"))
  return coco_scores.score(truth, _golden("detections_json"), masks=True)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_the_figures_are_pycocotools(scores, kind):
  golden = _GOLDEN[f"stats_{coco_scores.KINDS[kind]}"]
  found = [scores.figures[f"{kind}_{name}"] for name in detection.FIGURES]
  np.testing.assert_allclose(found, np.where(golden < 0, np.nan, golden), rtol=0, atol=1e-10)
  by_iou = _GOLDEN[f"ap_by_iou_and_class_{coco_scores.KINDS[kind]}"]
  np.testing.assert_allclose(scores.by_iou_and_class[kind], by_iou, rtol=0, atol=1e-10)
  np.testing.assert_allclose(scores.by_class[kind], by_iou.mean(0), rtol=0, atol=1e-10)
  np.testing.assert_allclose(scores.figures[f"{kind}_ap"], by_iou.mean(), rtol=0, atol=1e-10)


def test_nothing_is_printed(capfd):
  truth = coco_scores.of_content(_golden("ground_truth_json"))
  coco_scores.score(truth, _golden("detections_json"), masks=False)
  assert capfd.readouterr() == ("", "")


def test_a_dataset_scores_as_its_annotation_file(scores, tmp_path):
  content = _golden("ground_truth_json")
  content["images"] = [{**image, "file_name": f"{image['id']}.png"} for image in content["images"]]
  name = coco.write(tmp_path, {**content, "annotations": []})
  (tmp_path / "annotations.json").write_text(json.dumps(content))
  split = datasets.open_split(name, "train", task="detection")
  truth = coco_scores.ground_truth(split.source, split.class_names)
  found = coco_scores.score(truth, _golden("detections_json"), masks=True)
  assert found.figures == pytest.approx(scores.figures, abs=1e-10, nan_ok=True)
  np.testing.assert_allclose(found.by_iou_and_class["mask"], scores.by_iou_and_class["mask"], rtol=0, atol=1e-10)


@pytest.fixture
def split(tmp_path):
  return datasets.open_split(coco.write(tmp_path), "train", task="detection")


def _perfect(split, canvas_factor=1.5, order=(0, 1, 2)):
  """[(index, Found)] from outputs on canvases that show each object that is no crowd, and free slots."""
  found = []
  for index in range(len(split)):
    example = split.source.annotations(index)
    kept = np.flatnonzero(~example["crowd"])
    height, width = example["size"]
    size = (int(height * canvas_factor + 0.5), int(width * canvas_factor + 0.5))
    boxes, labels = np.zeros((5, 4), np.float32), np.full(5, -1, np.int32)
    masks = np.zeros((5, 28, 28), np.float32)
    boxes[: len(kept)] = example["boxes"][kept] * np.float32([size[1] / width, size[0] / height] * 2)
    labels[: len(kept)] = np.array(order)[example["labels"][kept]]
    for slot, i in enumerate(kept):
      masks[slot] = host_masks.crop(rle.decode(example["masks"][i]), example["boxes"][i], 28) / 255
    outputs = (boxes, np.linspace(0.9, 0.5, 5, dtype=np.float32), labels, masks)
    found.append((index, coco_scores.in_image(*outputs, size=size, original=(height, width))))
  return found


def _score(split, found, masks=True):
  truth, results = coco_scores.ground_truth(split.source, split.class_names), []
  for index, detections in found:
    image_id = truth.dataset["images"][index]["id"]
    results += coco_scores.results(detections, image_id, split.source.category_ids)
  return coco_scores.score(truth, results, masks=masks)


def test_from_outputs_on_a_canvas_to_figures(split):
  found = _perfect(split)
  scores = _score(split, found)
  assert scores.figures["box_ap"] == pytest.approx(1)
  assert scores.figures["mask_ap50"] == pytest.approx(1)
  assert scores.figures["mask_ap75"] > 0.8
  assert scores.by_class["box"].tolist() == pytest.approx([1, 1, 1])
  assert np.isnan(
    [scores.figures[f"{kind}_ap_{size}"] for kind in ("box", "mask") for size in ("medium", "large")]
  ).all()
  for index, detections in found:
    example = split.source.annotations(index)
    np.testing.assert_allclose(detections.boxes, example["boxes"][~example["crowd"]], atol=1e-4)
    for i, mask in enumerate(detections.masks):
      assert mask["size"] == list(example["size"])
      assert len(detections.masks) == len(detections.boxes) > i
  assert "mask_ap" not in _score(split, found, masks=False).figures


def test_a_split_without_detections_or_without_objects(split, tmp_path):
  empty = _score(split, [])
  assert (empty.figures["box_ap"], empty.figures["mask_ar100"]) == (0, 0)
  assert empty.by_class["mask"].tolist() == [0, 0, 0]
  content = {**coco.content(), "annotations": []}
  nothing = datasets.open_split(coco.write(tmp_path / "other", content), "train", task="detection")
  scores = _score(nothing, [(index, found) for index, found in _perfect(split) if index < 6], masks=False)
  assert np.isnan(list(scores.figures.values())).all()
  assert np.isnan(scores.by_class["box"]).all()


def test_masks_are_encoded_as_pycocotools_does():
  rng = np.random.default_rng(0)
  for _ in range(100):
    height, width = rng.integers(1, 30, 2).tolist()
    h, w = rng.integers(0, (height + 1, width + 1))
    top, left = rng.integers(0, (height - h + 1, width - w + 1))
    part = rng.random((h, w)) < rng.choice([0, 0.2, 0.8, 1])
    whole = np.zeros((height, width), bool)
    whole[top : top + h, left : left + w] = part
    assert rle.encode_part(part, top, left, height, width) == rle.encode(whole)
    assert (rle.decode(rle.encode(whole)) == whole).all()


def test_a_box_outside_the_image_has_an_empty_mask_and_nan_is_left_out():
  boxes = np.float32([[300, 300, 400, 400], [np.nan, 0, 1, 1], [0, 0, 1, 1]])
  outputs = boxes, np.float32([0.5, 0.4, np.nan]), np.int32([0, 0, 0]), np.ones((3, 28, 28), np.float32)
  found = coco_scores.in_image(*outputs, size=(100, 100), original=(50, 50))
  assert rle.area(found.masks[0]) == 0
  assert found.boxes.tolist() == [[150, 150, 200, 200]]


def test_metrics_of_the_evaluator_of_detection():
  from configs import default

  config = default.get_config()
  config.task = "detection"
  metrics = evaluators.metrics(config)
  assert list(metrics) == [f"val/{kind}_{name}" for kind in ("box", "mask") for name in detection.FIGURES]
  config.model.masks = False
  assert list(evaluators.metrics(config)) == [f"val/box_{name}" for name in detection.FIGURES]
  assert evaluators.class_of("accuracy", config) is average_precision.AveragePrecision
  results = {f"val/box_{name}": 0.25 for name in detection.FIGURES} | {"val/images": 6}
  assert evaluators.summary(results) == "box AP 25.00%  box AP50 25.00%  box AP75 25.00%  on 6 test images"
  config.evals.calibration.every = ""
  with pytest.raises(UserError, match="calibration is for classifiers, and this is a detector"):
    evaluators.metrics(config)
