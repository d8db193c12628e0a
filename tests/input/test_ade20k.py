"""ADE20K from a small archive of the true structure: prepared by its command and read; what is skipped or refused."""

import struct
import zipfile

import numpy as np
from PIL import Image
import pytest
from tars import encode, photographs

from mlpvision.data import datasets, label_maps
from mlpvision.errors import UserError
from mlpvision.prepare import archives, preparation
from mlpvision.prepare.builders import ade20k

_ROOT, _ZIP = "ADEChallengeData2016", "ADEChallengeData2016.zip"
_NAMES = ["wall", "building, edifice", "bed "] + [f"class {i}, also called so" for i in range(3, 150)]
_LINES = ["Idx\tRatio\tTrain\tVal\tName", *(f"{i + 1} \t0.1576\t11664\t1172\t{name}" for i, name in enumerate(_NAMES))]


def _map(values, size=(40, 30)):
  return encode(Image.fromarray(np.resize(np.uint8(values), size[::-1])), "PNG")


def _files():
  """{name in the archive: bytes}: four good pairs and five others in training, two in validation."""
  pictures = [encode(picture) for picture in photographs(11, size=(40, 30))]
  train = dict.fromkeys(range(1, 5), _map([0, 1, 150]))
  train |= {5: _map([151]), 6: _map([1], (30, 40)), 7: None, 8: _map([3])[:-30], 9: _map([2])}
  files = {f"{_ROOT}/": b"", f"{_ROOT}/objectInfo150.txt": "\n".join(_LINES).encode()}
  for split, prefix, maps in (("training", "train", train), ("validation", "val", dict.fromkeys((1, 2), _map([7])))):
    for number, data in maps.items():
      stem = f"ADE_{prefix}_{number:08d}"
      files[f"{_ROOT}/images/{split}/{stem}.jpg"] = pictures.pop()
      if data is not None:
        files[f"{_ROOT}/annotations/{split}/{stem}.png"] = data
  files[f"{_ROOT}/images/training/ADE_train_00000009.jpg"] = b"not an image"
  return files


def _write(directory, files, change=None):
  """Writes the archive; `change` edits its bytes."""
  directory.mkdir(exist_ok=True)
  with zipfile.ZipFile(directory / _ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, data in files.items():
      archive.writestr(name, data)
  if change:
    (directory / _ZIP).write_bytes(change((directory / _ZIP).read_bytes()))
  return directory


def test_from_the_archive_to_examples(tmp_path, capsys):
  manual, data, files = _write(tmp_path / "manual", _files()), tmp_path / "data", _files()
  flags = preparation.prepare("ade20k", manual, data)
  assert flags == f"--config.data.name=ade20k --config.data.data_dir={data}"
  printed = capsys.readouterr().out
  assert "train: 4 stored, 5 skipped; the published archive has 20,210; names in report_train.txt" in printed
  (report,) = data.glob("ade20k/*/report_train.txt")
  skipped = dict(line.split("\t")[1:] for line in report.read_text().splitlines()[:-1])
  reasons = ["index 150, stored as 151", "30 x 40 pixels, the image 40 x 30", "not in the archive", "damaged", "format"]
  assert len(skipped) == 5
  assert all(reason in skipped[f"ADE_train_{i:08d}.jpg"] for i, reason in enumerate(reasons, 5))

  split = datasets.open_split("ade20k", "train", data, task="segmentation", reduce_zero_label=True)
  assert (len(split), len(split.class_names), split.class_names[:4]) == (4, 150, ("wall", "building", "bed", "class 3"))
  assert split.source.sizes.tolist() == [[30, 40]] * 4
  for example in (split.source[i] for i in range(4)):
    name = example["file_name"].decode()
    assert example["image"] == files[f"{_ROOT}/images/training/{name}"]
    assert example["segmentation"] == files[f"{_ROOT}/annotations/training/{name[:-4]}.png"]
    labels = label_maps.indices(label_maps.decode(example["segmentation"]), 150, reduce_zero=True)
    assert np.unique(labels).tolist() == [0, 149, 255]
  split = datasets.open_split("ade20k", "validation[:1]", data, task="segmentation")
  assert (len(split), split.class_names[:2]) == (1, ("other", "wall"))


def test_it_must_be_put_there_by_hand(tmp_path):
  with pytest.raises(UserError, match=rf"{_ZIP} not in .*\n.*csail.mit.edu(.|\n)*0.97 GB"):
    preparation.prepare("ade20k", tmp_path, tmp_path)
  with pytest.raises(UserError, match="python -m mlpvision.prepare ade20k .*--manual_dir=DIR"):
    datasets.check("ade20k", tmp_path, task="segmentation")


def _claim(size):
  """Every member claims another size, in its header and in the list of members."""

  def change(data):
    data = bytearray(data)
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
      at = data.find(magic)
      while at >= 0:
        struct.pack_into("<I", data, at + offset, size)
        at = data.find(magic, at + 1)
    return bytes(data)

  return change


def _overlap(data):
  """The second member begins where the first does."""
  first = data.find(b"PK\x01\x02")
  second = data.find(b"PK\x01\x02", first + 1)
  return data[: second + 42] + data[first + 42 : first + 46] + data[second + 46 :]


@pytest.mark.parametrize("change", [lambda data: data[:-10], lambda data: b"", _overlap])
def test_a_damaged_archive_is_refused(tmp_path, change):
  _write(tmp_path, _files(), change)
  with pytest.raises(UserError, match=rf"{_ZIP} cannot be read as a zip archive"):
    archives.check("ade20k", tmp_path)
  with pytest.raises(UserError, match=rf"{_ZIP} cannot be read as a zip archive"):
    ade20k.open_archive(tmp_path / _ZIP)


def test_another_archive_is_refused(tmp_path):
  with pytest.raises(UserError, match="begins with ADE20K_2021/x.jpg; expected files like ADEChallengeData2016/images"):
    archives.check("ade20k", _write(tmp_path, {"ADE20K_2021/x.jpg": b""}))


@pytest.mark.parametrize(
  ("lines", "change", "message"),
  [
    (None, None, "is not in the archive"),
    (_LINES[:-1], None, "149 lines"),
    (_LINES[:5] + _LINES[6:] + _LINES[5:6], None, "not in order"),
    (_LINES, _claim(3), "longer than the archive says"),
    (_LINES, _claim(2**31), "2,147,483,648 bytes; up to 1,048,576"),
  ],
)
def test_a_list_of_classes_that_is_not_the_published_one_is_refused(tmp_path, lines, change, message):
  name = f"{_ROOT}/objectInfo150.txt"
  path = _write(tmp_path, {} if lines is None else {name: "\n".join(lines)}, change) / _ZIP
  with pytest.raises(UserError, match=f"{name}.*{message}.*Use the archive as published"):
    ade20k.class_names(path, ade20k.open_archive(path))
