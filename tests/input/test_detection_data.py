"""Data of detection: COCO's format, datasets with boxes, their batches, and what is refused, left out or said."""

import copy
import json
import pickle
import sys

import coco
import numpy as np
import pytest
from tars import encode, photographs
import tensorflow_datasets as tfds

from configs import default
from mlpvision import config as config_lib
from mlpvision.data import (
  datasets,
  dense_transforms as dense,
  detection_records,
  host_masks,
  loader,
  notes,
  prepared,
  rle,
  rows,
)
from mlpvision.errors import UserError
from mlpvision.evaluate import coco_scores


@pytest.fixture(autouse=True)
def _forget_what_was_said():
  notes.say.cache_clear()
  notes.warn.cache_clear()


@pytest.fixture
def config():
  found = default.get_config()
  found.task, found.seed = "detection", 3
  found.data.update(canvas=(96, 160), scale=(150, 90), max_objects=5, batch_size=4, workers=0)
  found.augment.update(short_sides=(64, 80, 90), crop_short_sides=(60, 70), crop_sides=(40, 60))
  found.eval.batch_size = 2
  return found


@pytest.fixture
def name(tmp_path):
  return coco.write(tmp_path / "set")


def _open(name, split="train"):
  return datasets.open_split(name, split, task="detection")


def _changed(directory, change):
  """The data of `coco.content` after a change of its content."""
  found = copy.deepcopy(coco.content())
  coco.write(directory, found)
  found = change(found) or found
  (directory / "annotations.json").write_text(found if isinstance(found, str) else json.dumps(found))
  return f"coco:{directory / 'images'},{directory / 'annotations.json'}"


def test_examples_have_what_the_file_says(name, tmp_path):
  split, content = _open(name), coco.content()
  assert (split.class_names, split.source.category_ids, split.source.has_masks) == (coco.NAMES, coco.IDS, True)
  files = [split.source[i]["file_name"] for i in range(len(split))]
  assert sorted(files) == [f"picture {i}.png" for i in range(6)] != files
  for i, file in enumerate(files):
    example = pickle.loads(pickle.dumps(split)).source[i]
    image = next(image for image in content["images"] if image["file_name"] == file)
    expected = [a for a in content["annotations"] if a["image_id"] == image["id"]]
    assert (example["image_id"], example["index"], example["size"]) == (image["id"], i, tuple(split.source.sizes[i]))
    assert example["size"] == (image["height"], image["width"])
    assert example["image"] == (tmp_path / "set" / "images" / file).read_bytes()
    assert example["ids"].tolist() == [a["id"] for a in expected]
    assert example["areas"].tolist() == [a["area"] for a in expected]
    assert [coco.IDS[k] for k in example["labels"]] == [a["category_id"] for a in expected]
    assert (example["boxes"][:, 2:] - example["boxes"][:, :2] == example["xywh"][:, 2:]).all()
    assert example["crowd"].tolist() == [bool(a["iscrowd"]) for a in expected]
    assert split.source.usable_counts[i] == sum(not a["iscrowd"] for a in expected)
    drawn = coco.picture(content, image["id"])
    for annotation, mask in zip(expected, example["masks"], strict=True):
      if not annotation["iscrowd"]:
        color = coco.COLORS[annotation["category_id"]]
        assert (drawn[rle.decode(mask) > 0] == color).all(-1).mean() > 0.9
    assert "image" not in split.source.annotations(i)


def test_splits_and_slices(tmp_path):
  whole = _open(coco.write(tmp_path / "set"))
  ids = [whole.source.annotations(i)["image_id"] for i in range(6)]
  parts = [_open(coco.write(tmp_path / "set"), split) for split in ("train[:2]", "train[2:]")]
  assert [part.source.annotations(i)["image_id"] for part in parts for i in range(len(part))] == ids
  assert len({whole.identity, _open(coco.write(tmp_path / "copy")).identity}) == 1
  assert len({whole.identity, *(part.identity for part in parts)}) == 3
  for split, count in (("train", 6), ("val", 3)):
    coco.write(tmp_path / f"{split}2017", coco.content(coco.SIZES[:count]))
    (tmp_path / f"{split}2017" / "annotations.json").rename(tmp_path / f"instances_{split}2017.json")
  name = f"coco:{tmp_path}/{{split}}2017/images,{tmp_path}/instances_{{split}}2017.json"
  datasets.check(name, None, task="detection")
  assert [len(_open(name, split)) for split in ("train", "test", "validation[:2]")] == [6, 3, 2]
  with pytest.raises(UserError, match="no split 'holiday', only train, val"):
    _open(name, "holiday")


def _first(**values):
  return lambda c: c["annotations"][1].update(values)


def _image(**values):
  return lambda c: c["images"][2].update(values)


def _segmentation(value):
  return _first(segmentation=value)


_WRONG = {
  "not valid JSON: .*Copy or export it again": lambda c: json.dumps(c)[:-20],
  r"has a list at the top; expected \{": lambda c: "[]",
  "has no 'categories'; expected": lambda c: c.pop("categories") and None,
  "'images' is not a list of objects": lambda c: c.update(images={"a": 1}),
  "'annotations' is not a list of objects": lambda c: c["annotations"].append(3),
  "'images' is empty": lambda c: c.update(images=[]),
  r"categories without an integer id or a name: 1 \(\{'id': 'x'": lambda c: c["categories"][0].update(id="x"),
  r"categories with the id or the name of another one: 1 \(3: cup\)": lambda c: c["categories"][1].update(name="cup"),
  "images without an integer id or a file_name: 6 .*, ...": lambda c: (
    [i.pop("file_name") for i in c["images"]] and None
  ),
  r"images without a valid height and width: 1 \(image 102: 64 x 0\)": _image(width=0),
  "images without a valid height and width: 1 .*102: 64 x 99999999": _image(width=99999999),
  r"images whose file_name leads out of the directory: 1 \(image 102: ../x\)": _image(file_name="../x"),
  r"images with the id of another one: 1 \(101\)": _image(id=101),
  r"images with the file_name of another one: 1 \(picture 0.png\)": _image(file_name="picture 0.png"),
  r"annotations without an integer id: 1 \(\{'id': None": _first(id=None),
  r"annotations with the id of another one: 1 \(1\)": _first(id=1),
  r"annotations of unknown images: 1 \(annotation 11: 5\)": _first(image_id=5),
  r"annotations of unknown categories: 1 \(annotation 11: 4\)": _first(category_id=4),
  r"without a bbox of four finite numbers, or .*: 1 \(annotation 11: \[nan": _first(bbox=[float("nan"), 0, 1, 1]),
  r"four finite numbers, or .*: 1 \(annotation 11: \[0, inf": _first(bbox=[0, float("inf"), 1, 1]),
  r"four finite numbers, or .*: 1 \(annotation 11: None": _first(bbox=None),
  "finite numbers, or with another area: 1": _first(area="large"),
  r"annotations whose iscrowd is not 0 or 1: 1 \(annotation 11\)": _first(iscrowd=2),
  r"an RLE of another size than its image: 1 \(annotation 11\)": _segmentation({"size": [5, 5], "counts": [25]}),
  "an RLE whose runs do not cover the image: 1 ": _segmentation({"size": [80, 60], "counts": [25]}),
  "RLE whose runs do not cover the image: 1  ?": _segmentation({"size": [80, 60], "counts": "T0"}),
  "whose runs do not cover the image: 1": _segmentation({"size": [80, 60], "counts": "\x7f\x00"}),
  "a segmentation that is neither a list of polygons nor an RLE: 1": _segmentation("abc"),
  "a segmentation that is neither a list of polygons": _segmentation([1, 2, 3, 4, 5, 6]),
  "a polygon that is not a list of numbers: 1": _segmentation([[1, 2, 3, 4, 5, "6"]]),
  "a polygon with NaN, infinite or huge": _segmentation([[1, 2, 3, 4, 5, float("nan")]]),
  "with NaN, infinite or huge coordinates: 1": _segmentation([[1, 2, 3, 4, 5, 1e9]]),
  "1 of 6 images in .*:\n  gone.png: there is no such file": _image(file_name="gone.png"),
  "picture 2.png: has 64 x 64 pixels, upright, but 64 x 65 in the annotations": _image(height=65),
}


@pytest.mark.parametrize("message", _WRONG)
def test_what_is_wrong_with_the_annotations_is_found_when_they_are_opened(tmp_path, message):
  name = _changed(tmp_path, _WRONG[message])
  with pytest.raises(UserError, match=message) as raised:
    _open(name)
  assert str(tmp_path) in str(raised.value)


def test_all_problems_are_listed_at_once(tmp_path):
  def change(content):
    for annotation in content["annotations"][:5]:
      annotation["category_id"] = 1
    content["annotations"][6]["bbox"] = [1, 2, 3]

  with pytest.raises(UserError) as raised:
    _open(_changed(tmp_path, change))
  assert "categories: 5 (annotation 1: 1, annotation 11: 1, annotation 12: 1, ...)\n" in str(raised.value)
  assert "four finite numbers, or with another area: 1 (annotation " in str(raised.value)


@pytest.mark.parametrize(
  ("values", "note"),
  [
    (dict(bbox=[200, 10, 5, 5]), "outside their image, not trained on: 1"),
    (dict(bbox=[-9, 10, 5, 5]), "outside their image, not trained on: 1"),
    (dict(bbox=[5, 10, 0, 5]), "objects without area"),
    (dict(bbox=[5, 10, -4, 5]), "objects without area"),
    (dict(bbox=[5, 10, 0.5, 5]), "smaller than a pixel"),
    (dict(area=0), "objects without area"),
  ],
)
def test_objects_that_training_leaves_out_are_said_and_scored(tmp_path, capsys, values, note):
  split = _open(_changed(tmp_path, _first(**values)))
  printed = capsys.readouterr().out
  assert printed.startswith(f"note: {tmp_path}")
  assert note in printed
  assert "(annotation 11)" in printed
  (example,) = (e for e in map(split.source.annotations, range(6)) if e["image_id"] == 101)
  assert example["ids"].tolist() == [11, 12]
  assert split.source.usable_counts[example["index"]] == 1


def test_polygons_without_three_points_are_left_out_and_said(tmp_path, capsys):
  def change(content):
    content["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]
    content["annotations"][2]["segmentation"].append([1, 2, 3, 4, 5, 6, 7])

  split = _open(_changed(tmp_path, change))
  printed = capsys.readouterr().out
  assert "polygons without three points, left out: 2 (annotation 11, annotation 12)" in printed
  assert "objects without any other polygon, left out: 1 (annotation 11)" in printed
  (example,) = (e for e in map(split.source.annotations, range(6)) if e["image_id"] == 101)
  assert example["ids"].tolist() == [12]


@pytest.mark.parametrize("some", [True, False])
def test_a_dataset_without_masks_has_boxes_alone(tmp_path, config, capsys, some):
  def change(content):
    for annotation in content["annotations"][some:]:
      del annotation["segmentation"]
      annotation.pop("area")
      annotation.pop("iscrowd")

  config.data.name = _changed(tmp_path, change)
  printed = capsys.readouterr().out
  with pytest.raises(UserError, match="has boxes but no masks: set --config.model.masks=False"):
    datasets.of(config, "train")
  printed = capsys.readouterr().out
  assert some == ("objects without a mask, so that the dataset has boxes alone: 9" in printed)
  config.model.masks = False
  batch = next(loader.train_batches(datasets.of(config, "train", training=True), config, start_step=0))
  assert set(batch) == {"image", "size", "boxes", "labels", "replaced"}


_NAMES = {
  "write coco:IMAGES_DIR,ANNOTATIONS.json": "coco:/somewhere",
  "there is no file /none.json": "coco:/tmp,/none.json",
  "there is no directory /none": "coco:/none,{file}",
  "annotation file must, too": "coco:/tmp/{{split}},{file}",
  "with the name of a split in place of {split}": "coco:/tmp,/none/{{split}}.json",
  "without boxes: write coco:IMAGES_DIR,ANNOTATIONS.json": "folder:/tmp",
}


@pytest.mark.parametrize("message", _NAMES)
def test_names_that_are_refused_before_a_run(config, tmp_path, message):
  (tmp_path / "a.json").write_text("{}")
  config.data.name = _NAMES[message].format(file=tmp_path / "a.json")
  with pytest.raises(UserError, match=message):
    config_lib.check(config)


def test_fields_that_are_refused_before_a_run(config, name):
  config.data.name = name
  config_lib.check(config)
  config_lib.check_evaluation(config)
  config.data.update(canvas=(96, 100), max_objects=0)
  config.augment.update(short_sides=(), crop_probability=2.0, crop_short_sides=(0,), crop_sides=(60, 40))
  with pytest.raises(UserError) as raised:
    config_lib.check(config)
  fields = "data.canvas data.max_objects augment.short_sides augment.crop_probability augment.crop_short_sides"
  for field in (*fields.split(), "augment.crop_sides"):
    assert f"{field}=" in str(raised.value)
  with pytest.raises(UserError, match=r"data\.canvas=\(96, 100\): must be 2 multiples of 32"):
    config_lib.check_evaluation(config)
  config.data.update(canvas=(96, 128), max_objects=5)
  config.augment.update(short_sides=(64, 100), crop_probability=0.5, crop_short_sides=(40,), crop_sides=(40, 60))
  with pytest.raises(UserError, match=r"data.scale=\(150, 90\): must fit(?s:.)*short_sides: 100 must not be larger"):
    config_lib.check(config)
  with pytest.raises(UserError, match=r"data.scale=\(150, 90\): must fit"):
    config_lib.check_evaluation(config)
  config.data.name, config.task = name, "classification"
  with pytest.raises(UserError, match="has boxes, which are for detection: set task='detection'"):
    config_lib.check(config)


def _colored(row):
  """Checks a row's boxes; [(which pixels in an object's mask have its color, which of those around it), ...]."""
  colors = np.array([coco.COLORS[number] for number in coco.IDS])
  found = []
  for i in np.flatnonzero(row["labels"] >= 0):
    x1, y1, x2, y2 = row["boxes"][i]
    assert 0 <= x1 < x2 <= row["size"][1]
    assert 0 <= y1 < y2 <= row["size"][0]
    mask, top, left = host_masks.around_box(row["masks"][i] / 255, row["boxes"][i], *row["image"].shape[:2])
    part = row["image"][top : top + mask.shape[0], left : left + mask.shape[1]].astype(int)
    is_color = np.abs(part - colors[row["labels"][i]]).max(-1) < 60
    found.append((is_color[mask > 0.8], is_color[mask < 0.2]))
  return found


def test_training_rows_follow_their_objects(name, config, capsys):
  config.data.name = name
  split = datasets.of(config, "train", training=True)
  assert "1 of 6 images have no object to train on, and are left out" in capsys.readouterr().out
  assert split.name == f"{name}:train, images with objects"
  assert len(split) == 5
  task_rows, rng = rows.of(config), np.random.default_rng(0)
  for augment in (
    dict(flip=0.0, crop_probability=0.0),
    dict(flip=1.0, crop_probability=0.0),
    dict(crop_probability=1.0),
  ):
    config.augment.update(augment)
    shares, sizes = [], set()
    for index in [*range(5)] * 3:
      row = task_rows.train(split.source[index], rng, split)
      wide = split.source.sizes[index][1] > split.source.sizes[index][0]
      assert row["image"].shape == ((96, 160, 3) if wide else (160, 96, 3))
      assert min(row["size"]) <= 90
      assert max(row["size"]) <= 150
      height, width = row["size"]
      assert not row["image"][height:].any()
      assert not row["image"][:, width:].any()
      assert not row["boxes"][row["labels"] < 0].any()
      shares += _colored(row)
      sizes.add(tuple(row["size"]))
    inside, outside = (np.concatenate(part).mean() for part in zip(*shares, strict=True))
    assert inside > 0.9
    assert outside < 0.1
    assert len(sizes) > 5


def test_a_crop_has_the_orientation_of_its_canvas():
  from mlpvision.data import detection_transforms as scenes

  rng = np.random.default_rng(0)
  for shape, canvas in (((480, 481), (800, 1344)), ((700, 500), (1344, 800)), ((500, 500), (1344, 800))):
    boxes = [scenes.draw_crop(shape, (384, 600), canvas, rng) for _ in range(50)]
    for box in boxes:
      assert box.y + box.height <= shape[0]
      assert box.x + box.width <= shape[1]
      assert (box.height <= box.width) if canvas[1] > canvas[0] else (box.width <= box.height)
      assert min(box.height, box.width) >= 384
    assert len({(box.height, box.width) for box in boxes}) > 40
  boxes = [scenes.draw_crop((90, 400), (384, 600), (96, 96), rng) for _ in range(20)]
  assert {box.height for box in boxes} == {90}


def test_a_crop_may_lose_all_objects(name, config):
  config.data.name = name
  config.augment.update(crop_probability=1.0, crop_short_sides=(400,), crop_sides=(30, 31))
  split = datasets.of(config, "train", training=True)
  found = [rows.of(config).train(split.source[0], np.random.default_rng(i), split) for i in range(30)]
  counts = {int((row["labels"] >= 0).sum()) for row in found}
  assert 0 in counts
  assert max(counts) > 0
  assert all(not row["masks"].any() and not row["boxes"].any() for row in found if (row["labels"] < 0).all())


def test_batches_do_not_depend_on_hosts(name, config):
  config.data.name = name
  split = datasets.of(config, "train", training=True)
  wide = 0
  batches = loader.train_batches(split, config, start_step=0)
  hosts = [loader.train_batches(split, config, start_step=0, process_index=i, process_count=2) for i in range(2)]
  for step in range(6):
    batch, parts = next(batches), [next(host) for host in hosts]
    assert all((np.concatenate([part[key] for part in parts]) == batch[key]).all() for key in batch)
    canvas = loader.canvas_of_step(split, config, step)
    assert batch["image"].shape == (4, *canvas, 3)
    sizes = split.source.sizes[loader.image_indices(split, config, step)]
    assert ((sizes[:, 1] > sizes[:, 0]) == (canvas[1] > canvas[0])).all()
    wide += canvas[1] > canvas[0]
  assert 0 < wide < 6
  assert {key: (value.shape, value.dtype) for key, value in batch.items() if key != "image"} == {
    "size": ((4, 2), np.int32),
    "boxes": ((4, 5, 4), np.float32),
    "labels": ((4, 5), np.int32),
    "masks": ((4, 5, 56, 56), np.uint8),
    "replaced": ((4,), np.bool_),
  }


@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_sees_all_images_once_on_two_canvases(name, config, hosts):
  config.data.name = name
  split = datasets.of(config, "train")
  passes = [
    list(loader.eval_batches(split, config, device_count=2, process_index=i, process_count=hosts)) for i in range(hosts)
  ]
  assert all([b["image"].shape for b in each] == [b["image"].shape for b in passes[0]] for each in passes)
  seen = []
  for batch in (batch for each in passes for batch in each):
    for row in np.flatnonzero(batch["mask"]):
      index, original = int(batch["index"][row]), tuple(batch["original"][row])
      assert original == tuple(split.source.sizes[index])
      assert tuple(batch["size"][row]) == dense.fit(original, (150, 90))
      height, width = batch["size"][row]
      drawn = dense.resize(coco.picture(coco.content(), split.source.annotations(index)["image_id"]), (height, width))
      assert (batch["image"][row, :height, :width] == drawn).all()
      assert not batch["image"][row, height:].any()
      seen.append(index)
  assert sorted(seen) == list(range(6))


def test_images_that_do_not_decode_are_replaced_by_one_of_their_orientation(name, config, tmp_path, capfd):
  path = tmp_path / "set" / "images" / "picture 3.png"
  path.write_bytes(path.read_bytes()[:-30])
  config.data.name = name
  split = datasets.of(config, "train", training=True)
  batches = loader.train_batches(split, config, start_step=0)
  replaced = 0
  for step in range(6):
    batch = next(batches)
    assert batch["image"].shape[1:3] == loader.canvas_of_step(split, config, step)
    replaced += batch["replaced"].sum()
  assert replaced
  assert "replaced by another image" in capfd.readouterr().err
  with pytest.raises(UserError, match=r"image \d of coco:.*picture 3.png.*evaluation skips no image"):
    list(loader.eval_batches(datasets.of(config, "train"), config))


def test_more_objects_than_there_is_room_for_are_counted_and_said(name, config, capsys):
  config.data.update(name=name, max_objects=1)
  split = datasets.of(config, "train", training=True)
  printed = capsys.readouterr().err
  assert "3 of 6 images have more than data.max_objects=1 objects (picture " in printed
  batch = next(loader.train_batches(split, config, start_step=0))
  assert batch["labels"].shape == (4, 1)
  datasets.of(config, "train", training=True)
  assert "max_objects" not in capsys.readouterr().err


def test_a_split_without_objects_cannot_be_trained_on(tmp_path, config):
  config.data.name = _changed(tmp_path, lambda c: c.update(annotations=[]))
  with pytest.raises(UserError, match="none of the 6 images has an object to train on"):
    datasets.of(config, "train", training=True)


def test_scenes_of_digits(scenes, config):
  config.data.update(name="digit_scenes", data_dir=str(scenes), canvas=(96, 96), scale=(96, 96), max_objects=6)
  config.augment.update(short_sides=(96,), crop_probability=0.0, flip=0.0)
  config_lib.check(config)
  split = datasets.of(config, "train", training=True)
  assert (split.class_names, split.source.category_ids) == (tuple("0123456789"), tuple(range(1, 11)))
  assert (split.source.sizes == 96).all()
  row = rows.of(config).train(split.source[0], np.random.default_rng(0), split)
  example = split.source[0]
  count = len(example["labels"])
  assert (row["boxes"][:count] == example["boxes"]).all()
  assert row["labels"].tolist() == example["labels"].tolist() + [-1] * (6 - count)
  for box, mask, crop in zip(example["boxes"].astype(int), example["masks"], row["masks"], strict=False):
    bitmap = rle.decode(mask)
    assert bitmap.sum() == bitmap[box[1] : box[3], box[0] : box[2]].sum() == rle.area(mask)
    assert abs(bitmap[box[1] : box[3], box[0] : box[2]].mean() - crop.mean() / 255) < 0.02
  assert next(loader.train_batches(split, config, start_step=0))["image"].shape == (4, 96, 96, 3)
  (group,) = rows.of(config).groups(split)
  assert len(group[0]) == len(split)


class Boxes(tfds.core.GeneratorBasedBuilder):
  """A dataset as tfds has them."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    objects = {
      "bbox": tfds.features.BBoxFeature(),
      "label": tfds.features.ClassLabel(names=["cat", "dog"]),
      "is_crowd": tfds.features.Scalar(np.bool_),
    }
    features = {"image": tfds.features.Image(encoding_format="jpeg"), "objects": tfds.features.Sequence(objects)}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i, picture in enumerate(photographs(4, size=(80, 60))):
      objects = [
        {"bbox": tfds.features.BBox(ymin=0.25, xmin=0.5, ymax=0.75, xmax=1.0), "label": k % 2, "is_crowd": k == 2}
        for k in range(i)
      ]
      yield i, {"image": encode(picture), "objects": objects}


def test_boxes_of_tfds(tmp_path, config):
  Boxes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
  config.data.update(name="boxes", data_dir=str(tmp_path))
  with pytest.raises(UserError, match="has boxes but no masks"):
    datasets.of(config, "train")
  config.model.masks = False
  split = datasets.of(config, "train")
  examples = {len(e["labels"]): e for e in (split.source[i] for i in range(4))}
  assert sorted(examples) == [0, 1, 2, 3]
  assert examples[3]["boxes"].tolist() == [[40, 15, 80, 45]] * 3
  assert examples[3]["labels"].tolist() == [0, 1, 0]
  assert examples[3]["crowd"].tolist() == [False, False, True]
  assert examples[3]["areas"].tolist() == [1200] * 3
  assert sorted(split.source.usable_counts) == [0, 1, 2, 2]
  assert (split.source.sizes == (60, 80)).all()
  assert len(datasets.of(config, "train", training=True)) == 3
  # The sizes are kept, and a file with others is not believed.
  (kept,) = tmp_path.glob("boxes/*/sizes_train_*.npy")
  assert np.load(kept)[:, :2].tolist() == [[60, 80]] * 4
  changed = np.load(kept) + np.int32([4, 0, 0])
  for value, expected in ((changed, 64), (changed[1:], 60), (changed.astype(np.float32), 60)):
    np.save(kept, value)
    assert (datasets.of(config, "train").source.sizes[:, 0] == expected).all()
  kept.write_bytes(b"\x93NUMPY")
  assert (datasets.of(config, "train").source.sizes == (60, 80)).all()
  assert datasets.of(config, "train[1:]").source.sizes.shape == (3, 2)
  assert len([*kept.parent.glob("sizes_*")]) == 2


def test_datasets_of_tfds_without_boxes_are_refused(tmp_path):
  with pytest.raises(UserError, match="mnist5k has no boxes: for detection it must have .*; it has image, label"):
    detection_records.find_form("mnist5k", prepared.own_builder("mnist5k", tmp_path).info)


def test_without_pycocotools_it_is_named_before_a_run(config, name, monkeypatch):
  config.data.name = name
  monkeypatch.setitem(sys.modules, "pycocotools", None)
  with pytest.raises(UserError, match=r"pip install 'mlpvision\[detection\]'"):
    config_lib.check(config)


_VALUES = (
  None,
  True,
  -1,
  0,
  2.5,
  10**400,
  float("nan"),
  "x",
  "\ud800",
  [],
  [[]],
  [1, 2, 3, 4],
  {},
  {"size": [80.0, 60.0]},
)


def test_any_value_in_any_place_is_refused_or_read(tmp_path):
  """Every field in turn has every one of a number of values; what is opened can be read, scored and trained on."""
  coco.write(tmp_path)
  opened = 0
  for group in ("images", "annotations", "categories"):
    for field in coco.content()[group][1]:
      for value in _VALUES:
        content = coco.content()
        content[group][1][field] = value
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        try:
          split = _open(f"coco:{tmp_path / 'images'},{tmp_path / 'annotations.json'}")
        except UserError:
          continue
        opened += 1
        for i in range(len(split)):
          assert all(rle.decode(mask).any() for mask in split.source.annotations(i)["masks"] or ())
        coco_scores.score(coco_scores.ground_truth(split.source, split.class_names), [], masks=split.source.has_masks)
  assert 5 < opened < 60


def test_other_classes_are_refused(name):
  split = _open(name)
  assert datasets.with_classes(split, coco.NAMES, "x") == (split, None)
  with pytest.raises(UserError, match="boxes need the same classes in the same order"):
    datasets.with_classes(split, ["cup"], "the run")
