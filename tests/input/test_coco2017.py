"""COCO 2017 from small archives of the true structure: prepared by its command and read; what is skipped or refused."""

import copy
import io
import json
import zipfile

import coco
import numpy as np
from PIL import Image
import pytest
from tars import encode

from mlpvision.data import datasets, rle
from mlpvision.errors import UserError
from mlpvision.prepare import archives, preparation

_ANNOTATIONS = "annotations_trainval2017.zip"


def _content():
  """The test's objects, with COCO's 80 categories, of ids up to 90, and names of files as COCO has them."""
  found = coco.content()
  others = [number for number in range(1, 90) if number not in (3, 7, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
  found["categories"] = [*coco.CATEGORIES, *({"id": number, "name": f"thing {number}"} for number in others[:77])]
  for image in found["images"]:
    image["file_name"] = f"{image['id']:012d}.jpg"
  return found


def _archives(train=None, validation=None):
  """{archive: {member: bytes}}."""
  files = {_ANNOTATIONS: {"annotations/captions_val2017.json": b"{}"}}
  for folder, found in (("train2017", train or _content()), ("val2017", validation or _content())):
    pictures = {i["file_name"]: coco.picture(found, i["id"]) for i in found["images"]}
    files[f"{folder}.zip"] = {f"{folder}/": b""} | {
      f"{folder}/{name}": encode(Image.fromarray(drawn)) for name, drawn in pictures.items()
    }
    files[_ANNOTATIONS][f"annotations/instances_{folder}.json"] = json.dumps(found).encode()
  return files


def _write(directory, files):
  directory.mkdir(exist_ok=True)
  for name, members in files.items():
    with zipfile.ZipFile(directory / name, "w") as archive:
      for member, data in members.items():
        archive.writestr(member, data)
  return directory


def test_from_the_archives_to_examples(tmp_path, capsys):
  files, data = _archives(), tmp_path / "data"
  files["train2017.zip"]["train2017/000000000101.jpg"] = b"not an image"
  files["train2017.zip"]["train2017/000000000102.jpg"] = encode(Image.new("RGB", (30, 40)))
  del files["train2017.zip"]["train2017/000000000103.jpg"]
  flags = preparation.prepare("coco2017_instances", _write(tmp_path / "manual", files), data)
  assert flags == f"--config.data.name=coco2017_instances --config.data.data_dir={data}"
  printed = capsys.readouterr().out
  assert "bytes; the published file has 19,336,861,798" in printed
  assert "train: 3 stored, 3 skipped; the published archive has 118,287; names in report_train.txt" in printed
  (report,) = data.glob("coco2017_instances/*/report_train.txt")
  reasons = ["not an image in a supported format", "has 30 x 40 pixels, but 64 x 64", "is not in the archive"]
  for line, reason in zip(report.read_text().splitlines(), reasons, strict=False):
    assert reason in line

  train, validation = (
    datasets.open_split("coco2017_instances", split, data, task="detection") for split in ("train", "validation")
  )
  assert (len(train), len(validation)) == (3, 6)
  assert len(validation.class_names) == 80
  assert [validation.class_names[i] for i in (1, 5, 79)] == ["thing 2", "thing 6", "spoon"]
  assert validation.source.category_ids[:3] == (1, 2, 3)
  found = _content()
  for i in range(6):
    example = validation.source[i]
    expected = [a for a in found["annotations"] if a["image_id"] == example["image_id"]]
    assert example["ids"].tolist() == [a["id"] for a in expected]
    assert example["xywh"].tolist() == [a["bbox"] for a in expected]
    assert example["areas"].tolist() == [a["area"] for a in expected]
    assert example["crowd"].tolist() == [bool(a["iscrowd"]) for a in expected]
    assert [validation.source.category_ids[k] for k in example["labels"]] == [a["category_id"] for a in expected]
    drawn = coco.picture(found, example["image_id"])
    assert np.abs(np.asarray(Image.open(io.BytesIO(example["image"]))).astype(int) - drawn).mean() < 8
    assert tuple(validation.source.sizes[i]) == drawn.shape[:2]
    for annotation, mask in zip(expected, example["masks"], strict=True):
      if not annotation["iscrowd"]:
        assert 0.9 < rle.area(mask) / annotation["area"] < 1.1
      else:
        assert rle.decode(mask).T.ravel().nonzero()[0].tolist() == list(range(10, 50))


def _with(change):
  files = _archives()
  change(files)
  return files


def _categories(files):
  found = copy.deepcopy(_content())
  found["categories"][5]["name"] = "another"
  files[_ANNOTATIONS]["annotations/instances_val2017.json"] = json.dumps(found).encode()


_REFUSED = {
  "train2017.zip begins with images/1.jpg; expected files like train2017/000000000009.jpg": (
    lambda files: files.update({"train2017.zip": {"images/1.jpg": b"1"}})
  ),
  "val2017.zip not in .*(?s:.)*SHA-256 4f7e2ccb": lambda files: files.pop("val2017.zip"),
  "instances_val2017.json is not in the archive": (
    lambda files: files[_ANNOTATIONS].pop("annotations/instances_val2017.json")
  ),
  "instances_train2017.json is not valid JSON": (
    lambda files: files[_ANNOTATIONS].update({"annotations/instances_train2017.json": b"{"})
  ),
  "its splits have different categories": _categories,
}


@pytest.mark.parametrize("message", _REFUSED)
def test_other_archives_are_refused(tmp_path, message):
  files = _with(_REFUSED[message])
  with pytest.raises(UserError, match=message):
    preparation.prepare("coco2017_instances", _write(tmp_path / "manual", files), tmp_path / "data")


def test_the_published_archives_have_their_sizes():
  release = archives.find("coco2017_instances")
  assert sum(archive.size for archive in release.archives) == 20_405_354_669
  assert all(len(archive.sha256) == 64 for archive in release.archives)
