"""folder:/path: its splits, the order that slices rely on, and what it refuses."""

import collections
import os
import pickle
import shutil

import jax
import numpy as np
from PIL import Image
import pytest
from tars import photographs

from mlpvision.data import datasets, loader
from mlpvision.errors import UserError
from mlpvision.prepare import preparation


def _write(root, counts, start=0):
  """root/CLASS/CLASS_i.jpg for {class: number of images}."""
  pictures = iter(photographs(sum(counts.values()), size=(40, 30)))
  for name, count in counts.items():
    (root / name).mkdir(parents=True)
    for i in range(start, start + count):
      next(pictures).save(root / name / f"{name}_{i}.jpg")
  return root


def _open(root, split):
  opened = datasets.open_split(f"folder:{root}", split, None)
  return opened, [opened.source[i]["file_name"] for i in range(len(opened))]


_COUNTS = {"roof": 40, "flower": 20, "sky": 10}


def test_slices_share_out_every_class(tmp_path):
  root = _write(tmp_path / "photos", _COUNTS)
  whole, names = _open(root, "train")
  assert whole.class_names == ("flower", "roof", "sky")
  assert sorted(names) == sorted(f"{name}/{name}_{i}.jpg" for name, count in _COUNTS.items() for i in range(count))
  first, first_names = _open(root, "train[:90%]")
  last, last_names = _open(root, "train[90%:]")
  assert first.name == f"folder:{root}:train[:90%]"
  assert first_names + last_names == names
  for part, share in ((first_names, 0.9), (last_names, 0.1)):
    found = collections.Counter(name.partition("/")[0] for name in part)
    assert found == {name: count * share for name, count in _COUNTS.items()}
  assert _open(root, "train[10:-10]")[1] == names[10:-10]
  numbers = [int(name.rpartition("_")[2][:-4]) for name in names if name.startswith("roof")]
  assert numbers != sorted(numbers)
  for opened in (first, last):
    for i in (0, 3, len(opened) - 1):
      example = opened.source[i]
      assert example["image"] == (root / example["file_name"]).read_bytes()
      assert opened.class_names[example["label"]] == example["file_name"].partition("/")[0]


def test_the_order_is_the_folders_own(tmp_path):
  opened, names = _open(_write(tmp_path / "a", _COUNTS), "train")
  elsewhere, same_names = _open(_write(tmp_path / "elsewhere" / "b", dict(reversed(_COUNTS.items()))), "train")
  assert same_names == names
  assert elsewhere.identity == opened.identity != _open(tmp_path / "a", "train[:90%]")[0].identity
  # Fixed for good: another order would move images between the slices of somebody's folder.
  assert names[:5] == [
    "roof/roof_1.jpg",
    "flower/flower_11.jpg",
    "roof/roof_32.jpg",
    "sky/sky_7.jpg",
    "roof/roof_38.jpg",
  ]


def test_it_travels_to_workers_at_the_cost_of_its_names(tmp_path):
  opened, names = _open(_write(tmp_path, {"Kühe, grün": 300, "b": 300}), "train[:50%]")
  packed = pickle.dumps(opened)
  assert len(packed) < 1500 + len(opened) * (len("Kühe, grün_100.jpg") + 14)
  copy = pickle.loads(packed)
  assert [copy.source[i]["file_name"] for i in range(len(copy))] == names


@pytest.mark.parametrize(
  ("folders", "wanted", "found"),
  [
    ("train val", "val", "val"),
    ("train val", "validation", "val"),
    ("train val", "test", "val"),
    ("train validation test", "val", "validation"),
    ("train test", "validation[:50%]", "test[:50%]"),
    ("train val test", "test", "test"),
    ("train val valid", "validation", None),
    ("train test val valid", "validation", None),
    ("train other", "test", None),
    ("val test", "train", None),
  ],
)
def test_splits(tmp_path, folders, wanted, found):
  for folder in folders.split():
    _write(tmp_path / folder, {"a": 2, "b": 2})
  datasets.check(f"folder:{tmp_path}", None)
  if found is None:
    with pytest.raises(
      UserError, match=f"no split '{wanted}'; its directories are {', '.join(sorted(folders.split()))}"
    ):
      _open(tmp_path, wanted)
  else:
    assert _open(tmp_path, wanted)[0].name == f"folder:{tmp_path}:{found}"


def test_a_class_may_be_called_train(tmp_path):
  root = _write(tmp_path, {"train": 3, "tram": 3})
  assert _open(root, "train")[0].class_names == ("train", "tram")


def test_what_is_no_image_is_counted(tmp_path, capsys):
  root = _write(tmp_path, {"a": 2, "b": 2})
  for name in ("a/.DS_Store", "a/notes.txt", "b/list.TXT", "b/README"):
    (root / name).write_text("x")
  (root / ".git").mkdir()
  (root / "LICENSE").write_text("x")
  Image.new("RGB", (4, 4)).save(root / "a" / "B.PNG")
  assert len(_open(root, "train")[0]) == 5
  said = capsys.readouterr().out
  assert "ignored 4 files that are not images" in said
  assert "(2 .txt, 1 hidden, 1 no suffix)" in said


def _empty(root):
  (root / "c").mkdir()
  (root / "c" / "c.txt").write_text("x")


def _nested(root):
  shutil.copytree(root / "a", root / "b" / "deeper")


def _stray(root):
  shutil.copy(root / "a" / "a_0.jpg", root / "stray.jpg")


def _mixed(root):
  shutil.copytree(root / "a", root / "val" / "a")


def _none(root):
  shutil.rmtree(root / "a")
  shutil.rmtree(root / "b")


@pytest.mark.parametrize(
  ("change", "split", "message"),
  [
    (_none, "train", r"has no directories. Expected .*/CLASS/\*\.jpg or .*/train/CLASS/\*\.jpg"),
    (shutil.rmtree, "train", "there is no directory"),
    (_empty, "train", "classes without images .*: c$"),
    (_nested, "train", "b contains a directory, deeper, .*folder:.*/b"),
    (_stray, "train", r"images outside of a class: stray\.jpg"),
    (_mixed, "train", "val contain directories, a, b contain images"),
    (lambda root: None, "test", r"(?s)no split 'test', only classes \(a, b\).*eval_split=\"train\[90%:\]\""),
    (lambda root: None, "train[:100]", "Requested slice"),
    (lambda root: None, "train[:0%]", "none of the 4 images"),
    (lambda root: None, "train+train", "a single split, such as"),
  ],
)
def test_what_it_refuses(tmp_path, change, split, message):
  root = _write(tmp_path / "photos", {"a": 2, "b": 2})
  change(root)
  with pytest.raises(UserError, match=message):
    _open(root, split)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_or_broken_image_is_named_in_evaluation(tmp_path, small_config, workers):
  root = _write(tmp_path, {"a": 3, "b": 3})
  small_config.data.workers = workers
  opened, names = _open(root, "train")
  broken = root / names[4]
  broken.write_bytes(broken.read_bytes()[:300])
  where = f"image 4 of folder:{root}:train"
  with pytest.raises(UserError, match=rf"^{where} \({names[4]}\): .*damaged"):
    list(loader.eval_batches(opened, small_config))
  os.unlink(broken)
  with pytest.raises(UserError, match=f"^{where}: {broken}: there is no such file"):
    list(loader.eval_batches(opened, small_config))


@pytest.mark.parametrize("classes", ["ac", "c", "abc"])
def test_evaluation_may_lack_classes_of_training(tmp_path, small_config, classes):
  from mlpvision import sharding
  from mlpvision.evaluate import evaluators
  from mlpvision.training import setup

  _write(tmp_path / "train", {"a": 2, "b": 2, "c": 2})
  _write(tmp_path / "val", dict.fromkeys(classes, 1))
  small_config.data.name, small_config.data.eval_split = f"folder:{tmp_path}", "validation"
  small_config.optim.schedule.warmup = "0 steps"
  found = setup.set_up(small_config)
  split = found.eval_split
  assert split.class_names == ("a", "b", "c")
  assert [split.class_names[split.source[i]["label"]] for i in range(len(split))] == list(classes)
  assert (found.note is None) == (classes == "abc")
  if found.note:
    assert f":val lacks {3 - len(classes)} of the 3 classes" in found.note
  # The evaluator opens it under the name in the config, and scores it over all classes.
  options = dict(weights="this run", trained_on=small_config.data.name)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  evaluator, split, _ = evaluators.make({"type": "accuracy"}, found.model, "abc", small_config, mesh, **options)
  assert evaluator.classes is None
  assert split.source[0]["label"] == "abc".index(classes[0])


@pytest.mark.parametrize(
  ("train", "val", "message"),
  [
    ("ab", "abc", r":val has 3 classes, .*:train has 2; 1 .*: c$"),
    ("ab", "xy", ": x, y$"),
    ("a", "a", "only one class, a"),
  ],
)
def test_training_needs_the_classes_of_evaluation(tmp_path, small_config, train, val, message):
  from mlpvision.training import setup

  _write(tmp_path / "train", dict.fromkeys(train, 1))
  _write(tmp_path / "val", dict.fromkeys(val, 1))
  small_config.data.name, small_config.data.eval_split = f"folder:{tmp_path}", "val"
  with pytest.raises(UserError, match=message):
    setup.set_up(small_config)


def test_a_split_may_have_one_class_or_one_image(tmp_path, small_config):
  opened, names = _open(_write(tmp_path, {"a": 1}), "train")
  assert (opened.class_names, names) == (("a",), ["a/a_0.jpg"])
  (batch,) = loader.eval_batches(opened, small_config)
  assert batch["mask"].sum() == 1


def test_batches_from_a_folder(tmp_path, small_config):
  root = _write(tmp_path, {"a": 5, "b": 5})
  opened, names = _open(root, "train")
  small_config.data.batch_size = 10
  batch = next(loader.train_batches(opened, small_config, start_step=0))
  assert sorted(batch["label"]) == [0] * 5 + [1] * 5
  labels = np.concatenate([b["label"][b["mask"]] for b in loader.eval_batches(opened, small_config)])
  assert [opened.class_names[label] for label in labels] == [name[0] for name in names]


def test_a_folder_needs_no_preparation(tmp_path, capsys):
  root = _write(tmp_path, {"a": 2, "b": 2})
  assert preparation.prepare(f"folder:{root}") == f"--config.data.name=folder:{root}"
  assert "no preparation" in capsys.readouterr().out
  with pytest.raises(UserError, match=f"for a folder of images, write folder:{root}"):
    datasets.check(str(root), None)
