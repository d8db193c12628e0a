"""What a person sees of a detector: overlays, results in COCO's format, contact sheets, the AP of each class."""

import csv
import dataclasses
import io
import json
import math
import os
import types

import numpy as np
from PIL import Image
import pytest

from mlpvision import tasks, trained
from mlpvision.data import host_masks, prepared, transforms
from mlpvision.errors import UserError
from mlpvision.reporting import curves, detections, label_maps, lettering, per_class, tables
from mlpvision.tasks import detection_results

_NAMES = tuple("0123456789")


@dataclasses.dataclass(frozen=True)
class _Prediction:
  """The fields of `tasks.detection.Prediction`."""

  boxes: np.ndarray
  scores: np.ndarray
  labels: np.ndarray
  masks: list[np.ndarray] | None
  size: tuple[int, int]
  class_names: tuple[str, ...] = _NAMES


def _prediction(size, boxes, scores, labels, *more):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  return _Prediction(boxes, np.array(scores, np.float32), np.array(labels, int), more[0] if more else None, size)


@pytest.fixture(scope="module")
def scene(scenes):
  """(image uint8 [96, 96, 3], its digits as a detector finds them, best first)."""
  example = prepared.open_builder("digit_scenes", str(scenes)).as_data_source("test")[0]
  masks = [example["instances"][..., 0] == i + 1 for i in range(len(example["labels"]))]
  scores = np.linspace(0.9, 0.2, len(masks))
  return example["image"], _prediction((96, 96), example["boxes"], scores, example["labels"], masks)


def _pixels(data):
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_sheet_s_picture_has_masks_and_boxes_in_the_classes_colors(scene):
  image, found = scene
  crops = np.stack([host_masks.crop(mask, box) for mask, box in zip(found.masks, found.boxes, strict=True)])
  slots = len(crops) + 2  # as in a batch
  boxes, masks, labels = np.zeros((slots, 4), np.float32), np.zeros((slots, 56, 56), np.uint8), np.full(slots, -1)
  boxes[: len(crops)], masks[: len(crops)], labels[: len(crops)] = found.boxes, crops, found.labels
  drawn, pale = detections.draw(image / 255, boxes, labels, masks), label_maps.pale(image / 255)
  inside = np.zeros((96, 96), bool)
  for mask, (x1, y1, x2, y2) in zip(found.masks, found.boxes.astype(int), strict=True):
    inside |= mask
    inside[[y1, y2 - 1], x1:x2] = inside[y1:y2, [x1, x2 - 1]] = True
  last = int(np.argmin(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)))  # on top
  x1, y1 = found.boxes[last, :2].astype(int)
  np.testing.assert_array_equal(drawn[y1, x1], detections.color(found.labels[last]))
  assert abs(drawn - pale)[~inside].max() < 0.3  # crops have soft borders
  changed = (drawn != pale).any(-1)
  assert changed[inside].mean() > 0.95  # soft crops of a few thin pixels have nothing
  boxes_alone = detections.draw(image / 255, boxes, labels)
  np.testing.assert_array_equal(boxes_alone, detections.draw(image / 255, boxes, labels, 0 * masks))


def test_an_overlay_is_enlarged_and_has_masks_boxes_and_names(scene):
  image, found = scene
  every, some = _pixels(detections.to_overlay_png(image, found)), _pixels(detections.to_overlay_png(image, found, 0.5))
  assert every.shape == (380, 380, 3)
  hidden = found.scores < 0.5
  assert 0 < hidden.sum() < len(hidden)
  kept = dataclasses.replace(
    found, boxes=found.boxes[~hidden], scores=found.scores[~hidden], labels=found.labels[~hidden],
    masks=[mask for mask, left_out in zip(found.masks, hidden, strict=True) if not left_out],
  )  # fmt: skip
  np.testing.assert_array_equal(some, _pixels(detections.to_overlay_png(image, kept)))
  for i in range(len(found.labels)):  # with the ground of its name
    color = np.rint(255 * detections.color(found.labels[i]))
    assert (abs(every - color) <= 1).all(-1).sum() > 300


def test_names_are_inside_the_picture_beside_their_objects_and_not_on_each_other():
  boxes = [(0, 0, 40, 30), (2, 1, 41, 30), (60, 60, 100, 100), (30, 40, 50, 60)]
  image, found = np.zeros((100, 100, 3), np.uint8), _prediction((100, 100), boxes, [0.9, 0.8, 0.7, 0.6], [0, 1, 2, 3])
  picture = _pixels(detections.to_overlay_png(image, found))
  grounds = [(abs(picture - np.rint(255 * detections.color(i))) <= 1).all(-1) for i in range(4)]
  # All objects show about as much color as one alone: no name is below another.
  alone = _pixels(detections.to_overlay_png(image, _prediction((100, 100), boxes[3:], [0.6], [3])))
  expected = (abs(alone - np.rint(255 * detections.color(3))) <= 1).all(-1).sum()
  assert min(ground.sum() for ground in grounds) > 0.8 * expected
  x1, y1, x2, y2 = (int(3.8 * value) for value in boxes[3])
  assert (picture[y1 + 6 : y2 - 6, x1 + 6 : x2 - 6] == 0).all()  # nothing covers the object


def test_any_name_any_number_and_no_object_are_drawn():
  names = ("$x^2$ \udcff", "漢字 " * 20, *(f"class {i}" for i in range(300)))
  assert len(detections.color(300)) == 3
  labels = np.arange(40) * 7
  found = _Prediction(
    np.tile(np.float32([[-5, -5, 40, 25]]), (40, 1)), np.linspace(1, 0, 40), labels, None, (20, 30), names
  )
  assert _pixels(detections.to_overlay_png(np.zeros((20, 30, 3), np.uint8), found)).shape[1] == 380
  none = _prediction((20, 30), [], [], [])
  assert not _pixels(detections.to_overlay_png(np.zeros((20, 30, 3), np.uint8), none)).any()
  image = np.full((20, 30, 3), 0.5)
  np.testing.assert_allclose(detections.draw(image, none.boxes, none.labels), image)
  # Boxes without pixels, of an image that is cut.
  detections.draw(image, np.float32([[40, 5, 50, 9], [3, 3, 3, 3]]), np.array([0, 1]), np.ones((2, 56, 56), np.uint8))


def test_text_has_the_score_the_class_and_the_box():
  found = _prediction((96, 96), [(45, 47, 60.25, 85), (1, 2, 3, 4)], [0.984, 0.25], [7, 3])
  assert detection_results.as_text(found) == "  0.98  7  (45.0, 47.0, 60.2, 85.0)\n  0.25  3  (1.0, 2.0, 3.0, 4.0)"
  assert detection_results.as_text(found, 0.3).count("\n") == 0
  assert detection_results.as_text(found, 0.99) == "  no objects with a score of at least 0.99"


def test_coco_reads_the_results_as_they_were_found(scene, tmp_path):
  coco = pytest.importorskip("pycocotools.coco")
  from pycocotools import mask as rle

  _, found = scene
  results = detection_results.as_json(found, 17)["detections"]
  with tables.Objects(str(tmp_path / "new" / "detections.json"), array=True) as file:
    file.add(results)
  truth = coco.COCO()
  truth.dataset = {"images": [{"id": 17, "height": 96, "width": 96}], "categories": [{"id": i + 1} for i in range(10)]}
  truth.dataset["annotations"] = []
  truth.createIndex()
  loaded = truth.loadRes(str(tmp_path / "new" / "detections.json"))
  entries = loaded.loadAnns(loaded.getAnnIds(17))
  assert [entry["category_id"] for entry in entries] == [label + 1 for label in found.labels]
  assert [entry["category"] for entry in entries] == [_NAMES[label] for label in found.labels]
  np.testing.assert_array_equal([entry["score"] for entry in entries], found.scores)
  corners = [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in entries)]
  np.testing.assert_array_equal(corners, found.boxes)
  np.testing.assert_array_equal([rle.decode(entry["segmentation"]) for entry in entries], found.masks)
  without = detection_results.as_json(dataclasses.replace(found, masks=None))
  assert (without["height"], without["width"]) == (96, 96)
  assert without["detections"][0].keys() == {"category_id", "category", "bbox", "score"}


def test_categories_have_coco_s_ids_if_they_are_coco_s():
  names = detection_results._COCO
  assert detection_results.category_ids(_NAMES) == tuple(range(1, 11))
  ids = dict(zip(names, detection_results.category_ids(names), strict=True))
  known = {"person": 1, "stop sign": 13, "backpack": 27, "dining table": 67, "toilet": 70, "tv": 72, "toothbrush": 90}
  assert {name: ids[name] for name in known} == known
  assert len(set(ids.values())) == 80
  assert detection_results.category_ids(names[::-1]) == tuple(ids.values())[::-1]
  assert detection_results.category_ids(names[:79]) == tuple(range(1, 80))


def test_an_image_s_id_is_its_name():
  names = ["a/000000000139.jpg", "b/scene.2.png", "²", "x"]
  ids = detection_results.image_ids({name: os.path.basename(name) for name in names})
  assert list(ids.values()) == [139, "scene.2", "²", "x"]
  assert detection_results.image_ids({"d/a/7.png": "a/7.png"}) == {"d/a/7.png": "a/7"}
  with pytest.raises(UserError, match="a/7.png and b/007.png both have the image_id 7"):
    detection_results.image_ids({"a/7.png": "7.png", "b/007.png": "007.png"})


def test_a_table_is_written(tmp_path):
  found = _prediction((96, 96), [(45, 47, 60.25, 85)], [0.5], [7])
  path = tmp_path / "objects.csv"
  with tables.Table(str(path), detection_results.COLUMNS) as table:
    table.add(detection_results.table(found, "a, b.png"))
  rows = list(csv.DictReader(path.open()))
  assert rows == [
    {"image": "a, b.png", "category": "7", "score": "0.5", "x1": "45.0", "y1": "47.0", "x2": "60.25", "y2": "85.0"}
  ]
  with pytest.raises(UserError, match="cannot write /proc/nowhere/x.csv"):
    tables.Table("/proc/nowhere/x.csv", rows[0])


def test_the_ap_of_each_class():
  scores = {"1": (0.25, 0.125), "7": (0.75, 0.5), "none": (math.nan, math.nan)}
  assert per_class.text(scores).splitlines() == [
    "class   box AP  mask AP",
    "7       75.00%   50.00%",
    "1       25.00%   12.50%",
    "none         -        -",
    "mean    50.00%   31.25%",
  ]
  assert per_class.table(scores) == [
    ["class", "box_ap", "mask_ap"],
    ["1", 0.25, 0.125],
    ["7", 0.75, 0.5],
    ["none", "", ""],
  ]
  figure = per_class.picture(scores, "scenes: AP")
  (axes,) = figure.axes
  assert [label.get_text() for label in axes.get_yticklabels()] == ["7", "1"]
  assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[75, 25], [50, 12.5]]
  assert [text.get_text() for text in axes.get_legend().get_texts()] == ["box AP, mean 50.0%", "mask AP, mean 31.2%"]
  boxes_alone = {lettering.plain("$a"): (math.nan,)}
  assert per_class.text(boxes_alone).splitlines()[0].split() == ["class", "box", "AP"]
  for found in (scores, boxes_alone):
    assert curves.to_png(per_class.picture(found, "title"))


def test_curves_of_a_detector(tmp_path):
  rows = [
    {"step": 1, "train/loss": 2.0, "train/loss_rpn_cls": 0.7, "train/loss_mask": 0.6, "train/learning_rate": 0.1},
    {"step": 1, "val/box_ap": 0.1, "val/box_ap50": 0.2, "val/mask_ap": 0.05, "val/images": 3},
  ]
  panels = curves._panels(rows)
  assert list(panels) == ["loss", "box_ap", "mask_ap", "learning_rate"]
  assert {"train/loss_rpn_cls", "train/loss_mask"} < panels["loss"].keys()
  assert "mask_ap" not in curves._panels([{key: x for key, x in row.items() if "mask" not in key} for row in rows])
  (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
  curves.draw(tmp_path)
  assert _pixels((tmp_path / "curves.png").read_bytes()).any()


@pytest.fixture
def detector(scene, monkeypatch):
  """`trained.load` returns what finds the digits of the scene in any image."""
  task = types.ModuleType("detection")
  task.row = lambda path, config: transforms.open_image(path)
  task.as_text, task.as_json = detection_results.as_text, detection_results.as_json
  task.COLUMNS, task.table = detection_results.COLUMNS, detection_results.table
  monkeypatch.setitem(tasks.TASKS, "detection", task)
  loaded = types.SimpleNamespace(task=task, step=None, config_of_task=None, of_rows=lambda rows, top: [scene[1]])
  monkeypatch.setattr(trained, "load", lambda weights, **_: loaded)


def test_predict_prints_draws_and_writes_objects(scene, detector, here, tmp_path):
  image, found = scene
  paths = [str(tmp_path / name) for name in ("000139.png", "scene.png")]
  for path in paths:
    Image.fromarray(image).save(path)
  output = tmp_path / "found"
  flags = ("--weights=run", f"--output={output}", f"--csv={tmp_path / 'objects.csv'}", "--min_score=0.5")
  code, said = here("-m", "mlpvision.predict", *flags, *paths, paths[0])
  assert code == 0
  shown = detection_results.as_text(found, 0.5)
  assert said == "".join(f"{path}\n{shown}\n" for path in paths)
  assert sorted(path.name for path in output.iterdir()) == [
    "000139_overlay.png",
    "detections.json",
    "scene_overlay.png",
  ]
  expected = _pixels(detections.to_overlay_png(image, found, 0.5))
  np.testing.assert_array_equal(_pixels((output / "scene_overlay.png").read_bytes()), expected)
  results = json.loads((output / "detections.json").read_text())
  count = len(found.labels)
  assert [entry["image_id"] for entry in results] == [139] * count + ["scene"] * count
  assert len((tmp_path / "objects.csv").read_text().splitlines()) == 1 + 2 * count

  code, said = here("-m", "mlpvision.predict", "--weights=run", "--json", paths[0])
  assert json.loads(said) == {"image": paths[0], **detection_results.as_json(found, 139)}
  code, said = here("-m", "mlpvision.draw", "ap", "--weights=run", f"--output={tmp_path / 'ap.png'}")
  assert code == 2
  assert "ap needs a run" in said
