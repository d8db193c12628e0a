"""Data of segmentation: folders of pairs, their batches, and what is refused or replaced."""

import io
import pickle

import numpy as np
from PIL import Image
import pytest
from tars import photographs
import tensorflow_datasets as tfds

from configs import default
from mlpvision import config as config_lib
from mlpvision.data import class_list, datasets, dense_transforms as dense, loader, rows, segmentation_records
from mlpvision.errors import UserError
from mlpvision.prepare.builders import digit_scenes

_SIZES = [(40, 60), (60, 40), (64, 64), (40, 60), (90, 30), (60, 40), (41, 61)]  # (height, width)
_CLASSES = "sky\nroof\n ground \n"


def _labels(height, width):
  """Three stripes, with a band without a label."""
  labels = np.repeat((np.arange(height) * 3 // height).astype(np.uint8)[:, None], width, 1)
  labels[:, : width // 8] = dense.IGNORE
  return labels


def _picture(labels):
  """An image that shows its map."""
  return np.repeat(np.where(labels == dense.IGNORE, 0, 50 + labels * 50)[..., None], 3, 2).astype(np.uint8)


def _write(images, labels, sizes=_SIZES, suffix=".png"):
  """images/NAME and labels/NAME.png."""
  for directory in (images, labels):
    directory.mkdir(parents=True, exist_ok=True)
  for i, size in enumerate(sizes):
    found = _labels(*size)
    Image.fromarray(_picture(found)).save(images / f"place {i}{suffix}")
    Image.fromarray(found).save(labels / f"place {i}.png")


@pytest.fixture
def root(tmp_path):
  """A folder with one split."""
  _write(tmp_path / "images", tmp_path / "labels")
  (tmp_path / "classes.txt").write_text(_CLASSES)
  return tmp_path


@pytest.fixture
def config():
  found = default.get_config()
  found.task, found.seed = "segmentation", 3
  found.data.update(scale=(128, 48), image_size=32, batch_size=8, workers=0)
  found.eval.update(batch_size=2, scales=(0.5, 1.0))
  return found


def _open(root, split="train", **options):
  return datasets.open_split(f"folder:{root}", split, task="segmentation", **options)


def _names(split):
  return [split.source[i]["file_name"] for i in range(len(split))]


def test_a_folder_has_pairs_in_its_own_order(root, tmp_path):
  whole = _open(root)
  assert whole.class_names == ("sky", "roof", "ground")
  names = _names(whole)
  assert sorted(names) == [f"images/place {i}.png" for i in range(7)] != names
  assert _names(_open(root, "train[:3]")) + _names(_open(root, "train[3:]")) == names
  for i, name in enumerate(names):
    example = pickle.loads(pickle.dumps(whole)).source[i]
    assert example["image"] == (root / name).read_bytes()
    assert example["segmentation"] == (root / "labels" / name.removeprefix("images/")).read_bytes()
    assert tuple(whole.source.sizes[i]) == _SIZES[int(name[-5])]
  _write(tmp_path / "other" / "images", tmp_path / "other" / "labels", suffix=".jpg")
  (tmp_path / "other" / "classes.txt").write_bytes(b"\xef\xbb\xbf" + _CLASSES.replace("\n", "\r\n").encode())
  other = _open(tmp_path / "other")
  assert [name[:-4] for name in _names(other)] == [name[:-4] for name in names]
  assert len({_open(root).identity, whole.identity}) == 1
  assert len({whole.identity, _open(root, "train[:6]").identity, other.identity}) == 3


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_layouts_with_splits(tmp_path, layout):
  for split, count in (("train", 5), ("val", 2)):
    _write(*(tmp_path / layout.format(split=split, kind=kind) for kind in ("images", "labels")), _SIZES[:count])
  (tmp_path / "names.txt").write_text(_CLASSES)
  splits = [_open(tmp_path, split, classes=tmp_path / "names.txt") for split in ("train", "test", "validation[:50%]")]
  assert [len(split) for split in splits] == [5, 2, 1]
  assert splits[1].name == f"folder:{tmp_path}:val"
  assert _names(splits[2])[0].startswith(layout.format(split="val", kind="images"))
  with pytest.raises(UserError, match="no split 'holiday', only train, val"):
    _open(tmp_path, "holiday", classes=tmp_path / "names.txt")


_MISTAKES = {
  "1 images in images have no label map: place 3.png. Expected": lambda r: (r / "labels/place 3.png").unlink(),
  "1 label maps in labels have no image: place 0.png": lambda r: (r / "images/place 0.png").unlink(),
  "place 1.jpg and place 1.png; names must differ": lambda r: photographs(1)[0].save(r / "images/place 1.jpg"),
  "labels/place 8.jpg: a label map must be a PNG": lambda r: photographs(1)[0].save(r / "labels/place 8.jpg"),
  "images has both images .* and directories .more": lambda r: (r / "images/more").mkdir(),
  "labels contains a directory, more": lambda r: (r / "labels/more").mkdir(),
  "classes.txt: write the name of a class on each line": lambda r: (r / "classes.txt").unlink(),
  "classes.txt has the class 'a' twice, in lines 1 and 3": lambda r: (r / "classes.txt").write_text("a\nb\na"),
  "is not a folder for segmentation. Expected .*/images/NAME.jpg": lambda r: (r / "labels").rename(r / "maps"),
  "1 of 7 pairs:\n  images/place 2.png: its label map has 40 x 60 pixels, the image 64 x 64, upright": (
    lambda r: Image.fromarray(_labels(60, 40)).save(r / "labels/place 2.png")
  ),
  "images/place 2.png: its label map is a PNG with 8 bits per channel, RGB": (
    lambda r: photographs(1, size=(64, 64))[0].save(r / "labels/place 2.png")
  ),
  "images/place 4.png: its label map is a PNG with 16 bits": (
    lambda r: Image.fromarray(_labels(90, 30).astype(np.uint16)).save(r / "labels/place 4.png")
  ),
}


@pytest.mark.parametrize("message", _MISTAKES)
def test_mistakes_in_a_folder_are_found_when_it_is_opened(root, message):
  _MISTAKES[message](root)
  with pytest.raises(UserError, match=message):
    _open(root)


def test_what_the_check_before_a_run_finds(root, config, tmp_path):
  config.data.name = f"folder:{root}"
  config_lib.check(config)
  config.data.classes = str(tmp_path / "none.txt")
  with pytest.raises(UserError, match="there is no file .*none.txt"):
    config_lib.check(config)
  config.data.update(name="mnist5k", classes="", scale=(0, 1))
  config.eval.update(mode="tiles", stride=(0, 4), scales=())
  config.augment.update(resize_ratio=(2.0, 0.5), cat_max_ratio=0.0)
  with pytest.raises(UserError) as raised:
    config_lib.check(config)
  for field in "data.scale eval.mode eval.stride eval.scales augment.resize_ratio augment.cat_max_ratio".split():
    assert f"{field}=" in str(raised.value)
  with pytest.raises(UserError, match=r"eval\.mode='tiles'"):
    config_lib.check_evaluation(config)


@pytest.mark.parametrize(
  ("data", "problem"),
  [(b"", "no classes"), (b"a\n\nb", "an empty line, 2"), (b"\xff\xfe", "as text"), (b"a\n" * 300, "300 classes")],
)
def test_lists_of_classes_that_are_refused(tmp_path, data, problem):
  (tmp_path / "classes.txt").write_bytes(data)
  with pytest.raises(UserError, match=f"classes.txt.*{problem}"):
    class_list.read(tmp_path / "classes.txt")


def test_training_batches(root, config):
  split = _open(root)
  config.augment.resize_ratio = (0.3, 0.8)
  batch = next(loader.train_batches(split, config, start_step=0))
  assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
    "image": ((8, 32, 32, 3), np.uint8),
    "label": ((8, 32, 32), np.uint8),
    "size": ((8, 2), np.int32),
    "replaced": ((8,), np.bool_),
  }
  assert not batch["replaced"].any()
  assert (batch["size"] < 32).any()
  for image, label, (height, width) in zip(batch["image"], batch["label"], batch["size"], strict=True):
    inside = label[:height, :width]
    assert (image[:height, :width] == _picture(inside)).mean() > 0.8
    for part in np.s_[height:], np.s_[:, width:]:
      assert not image[part].any()
      assert (label[part] == 255).all()
  first_columns = [(label[:, 0] == 255).all() for label in batch["label"]]
  assert 0 < sum(first_columns) < 8  # some are flipped
  config.augment.photometric = True
  whole = next(loader.train_batches(split, config, start_step=4))
  hosts = [dict(process_index=i, process_count=2) for i in range(2)]
  parts = [next(loader.train_batches(split, config, start_step=4, **host)) for host in hosts]
  assert all((np.concatenate([part[key] for part in parts]) == whole[key]).all() for key in whole)


@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_groups_images_by_their_canvases(root, config, hosts):
  split = _open(root)
  passes = [
    list(loader.eval_batches(split, config, device_count=2, process_index=i, process_count=hosts)) for i in range(hosts)
  ]
  shapes = [[[image.shape for image in (*b["images"], b["label"])] for b in each] for each in passes]
  assert all(each == shapes[0] for each in shapes)
  assert len({str(shape) for shape in shapes[0]}) == 4
  found = {}
  for batch in (batch for batches in zip(*passes, strict=True) for batch in batches):
    for row in np.flatnonzero(batch["mask"]):
      height, width = batch["label_size"][row]
      labels = batch["label"][row]
      assert (labels[height:] == 255).all()
      assert (labels[:, width:] == 255).all()
      found.setdefault((int(height), int(width)), []).append(labels[:height, :width])
      for ratio, images, sizes in zip(config.eval.scales, batch["images"], batch["sizes"], strict=True):
        size = tuple(sizes[row])
        assert size == dense.fit((height, width), config.data.scale, ratio)
        expected = dense.resize(_picture(_labels(height, width)), size)
        assert (images[row, : size[0], : size[1]] == expected).all()
        assert not images[row, size[0] :].any()
        assert not images[row, :, size[1] :].any()
    blank = ~batch["mask"]
    assert (batch["label"][blank] == 255).all()
    assert (batch["sizes"][1][blank] == batch["images"][1].shape[1:3]).all()
  assert sorted(size for size, labels in found.items() for _ in labels) == sorted(_SIZES)
  assert all((labels == _labels(*size)).all() for size, maps in found.items() for labels in maps)
  indices = [list(part) for part, _ in rows.of(config).groups(split)]
  assert sorted(sum(indices, [])) == list(range(7))
  assert all(part == sorted(part) for part in indices)


def _truncate(path):
  path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_damage_is_replaced_in_training_and_named_in_evaluation(root, config, capfd, kind):
  _truncate(root / kind / "place 1.png")
  (root / kind / "place 3.png").write_bytes(b"")
  split = _open(root)
  batches = loader.train_batches(split, config, start_step=0)
  assert sum(next(batches)["replaced"].sum() for _ in range(3)) > 3
  printed = capfd.readouterr().err
  assert printed.count("replaced by another image") == 2
  assert "(images/place 1.png)" in printed
  with pytest.raises(UserError, match=r"of folder:.*place \d.png.*evaluation skips no image"):
    list(loader.eval_batches(split, config))


def test_an_unknown_index_ends_training_and_evaluation_with_its_name(root, config):
  for i, size in enumerate(_SIZES):
    Image.fromarray(np.full(size, 3, np.uint8)).save(root / "labels" / f"place {i}.png")
  split = _open(root)
  message = (
    r"image \d of folder:.*:train \(images/place \d.png\): its label map has the index 3 but there are 3 classes"
  )
  with pytest.raises(UserError, match=message):
    next(loader.train_batches(split, config, start_step=0))
  with pytest.raises(UserError, match=message):
    list(loader.eval_batches(split, config))
  config.data.reduce_zero_label = True
  assert (next(loader.train_batches(split, config, start_step=0))["label"] != 3).all()


def test_a_map_has_the_size_of_the_upright_image(root, config):
  exif = Image.Exif()
  exif[0x0112] = 6
  for i, (height, width) in enumerate(_SIZES):
    (root / "images" / f"place {i}.png").unlink()
    metadata = {"icc_profile": bytes(100_000)} if i == 3 else {}  # in front of the size
    kind = "png" if i == 4 else "jpg"
    Image.new("RGB", (height, width)).save(root / "images" / f"place {i}.{kind}", exif=exif, **metadata)
  split = _open(root)
  assert sorted(map(tuple, split.source.sizes)) == sorted(_SIZES)
  assert sum(batch["mask"].sum() for batch in loader.eval_batches(split, config)) == 7


def test_other_classes_are_refused(root):
  split = _open(root)
  assert datasets.with_classes(split, ["sky", "roof", "ground"], "x") == (split, None)
  with pytest.raises(UserError, match=r"other classes than the run.*\(sky, roof, ground; the run: roof, sky\)"):
    datasets.with_classes(split, ["roof", "sky"], "the run")


_IMAGE = tfds.features.Image()
_FEATURES = {
  "no label maps": {"image": _IMAGE, "label": tfds.features.ClassLabel(num_classes=2)},
  r"annotation has the shape \(None, None, 3\)": {"image": _IMAGE, "annotation": _IMAGE},
  "segmentation_mask has the shape .*uint16": {
    "image": _IMAGE,
    "segmentation_mask": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
  },
}


@pytest.mark.parametrize("message", _FEATURES)
def test_datasets_of_tfds_without_usable_maps_are_refused(message):
  with pytest.raises(UserError, match=message):
    segmentation_records.find_feature("set", tfds.features.FeaturesDict(_FEATURES[message]))


@pytest.fixture
def scenes(tmp_path, monkeypatch):
  """digit_scenes with twelve and four scenes."""
  monkeypatch.setattr(digit_scenes, "_SCENES", {"train": 12, "test": 4})
  return tmp_path / "tfds"


def test_scenes_are_functions_of_their_generator():
  digits, labels = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8), np.arange(20) % 10
  first, again, other = (digit_scenes.compose(np.random.default_rng((0, i)), digits, labels) for i in (3, 3, 4))
  assert all((a == b).all() for a, b in zip(first, again, strict=True))
  assert (first.image != other.image).any()


def test_digit_scenes(scenes, config, tmp_path):
  train, test = (datasets.open_split("digit_scenes", s, scenes, task="segmentation") for s in ("train", "test"))
  assert (len(train), len(test)) == (12, 4)
  assert train.class_names == test.class_names == ("background", *map(str, range(10)))
  seen = set()
  for example in (split.source[i] for split in (train, test) for i in range(len(split))):
    labels, objects = (np.asarray(Image.open(io.BytesIO(example[key]))) for key in ("segmentation", "instances"))
    assert objects.max() == len(example["labels"]) == len(example["boxes"])
    assert ((labels > 0) == (objects > 0)).all()
    for number, (digit, box) in enumerate(zip(example["labels"], example["boxes"], strict=True), 1):
      rows_of, columns = np.nonzero(objects == number)
      assert (labels[rows_of, columns] == 1 + digit).all()
      assert box.tolist() == [columns.min(), rows_of.min(), columns.max() + 1, rows_of.max() + 1]
    seen.add(example["image"])
  assert len(seen) == 16
  config.data.update(scale=(96, 96), image_size=96)
  batch = next(loader.train_batches(train, config, start_step=0))
  assert 0 < np.mean((batch["label"] > 0) & (batch["label"] < 11)) < 0.4
  config.eval.batch_size = 4
  (batch,) = loader.eval_batches(test, config)
  assert batch["label"].shape == (4, 96, 96)
  (tmp_path / "names.txt").write_text("\n".join("abcdefghijk"))
  named = datasets.open_split("digit_scenes", "test", scenes, task="segmentation", classes=tmp_path / "names.txt")
  assert named.class_names == tuple("abcdefghijk")
  with pytest.raises(UserError, match="must have the features image and label"):
    datasets.open_split("digit_scenes", "test", scenes)
