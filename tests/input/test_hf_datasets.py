"""hf:/path: Hugging Face's datasets from a directory, read by index."""

import os
import pickle

import jax
import numpy as np
import pytest
from tars import encode, photographs

from mlpvision.data import datasets, hf_datasets
from mlpvision.errors import UserError
from mlpvision.prepare import preparation

hf = pytest.importorskip("datasets")

_CLASSES = ("roof", "flower", "sky")
_LABELS = np.repeat(np.arange(3), (20, 10, 10))  # sorted, as many datasets are


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
  """No hub, and a cache of these tests."""
  cache = tmp_path_factory.mktemp("cache")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(hf.config, "HF_HUB_OFFLINE", True)
    patch.setattr(hf.config, "HF_DATASETS_CACHE", str(cache))
    yield cache


@pytest.fixture(scope="module")
def pictures():
  return [encode(image, ("JPEG", "PNG")[i % 2]) for i, image in enumerate(photographs(40, size=(40, 30)))]


def _dataset(pictures, labels=_LABELS, **columns):
  features = {"image": hf.Image(), "label": hf.ClassLabel(names=_CLASSES)}
  images = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(pictures)]
  known = {"image": images, "label": labels.tolist(), "id": list(range(len(pictures)))}
  kinds = {**features, "id": hf.Value("int64"), **columns}
  return hf.Dataset.from_dict({name: known.get(name, known["image"]) for name in kinds}, features=hf.Features(kinds))


@pytest.fixture(scope="module", params=["saved", "parquet"])
def root(request, pictures, tmp_path_factory):
  """A directory with the splits train and validation."""
  path = tmp_path_factory.mktemp(request.param)
  whole = _dataset(pictures)
  splits = hf.DatasetDict(train=whole, validation=whole.select(range(15, 25)))
  if request.param == "saved":
    splits.save_to_disk(path / "data", num_shards={"train": 3, "validation": 1})
  else:
    (path / "data" / "data").mkdir(parents=True)
    for name, split in splits.items():
      split.to_parquet(path / "data" / "data" / f"{name}-00000-of-00001.parquet", batch_size=7)
  return path / "data"


def test_examples_are_those_of_the_source(root, pictures):
  opened = datasets.open_split(f"hf:{root}", "train")
  assert opened.name == f"hf:{root}:train"
  assert opened.class_names == _CLASSES
  assert len(opened) == 40
  for i in (0, 7, 19, 20, 39):
    assert opened.source[i] == {"image": pictures[i], "label": _LABELS[i], "file_name": f"{i}.jpg"}
  with pytest.raises(IndexError):
    opened.source[40]
  held_out = datasets.open_split(f"hf:{root}", "test")  # another name for the only one
  assert held_out.name.endswith(":validation")
  assert [held_out.source[i]["image"] for i in range(10)] == pictures[15:25]


def test_slices_share_out_every_class(root, pictures):
  parts = [datasets.open_split(f"hf:{root}", f"train[{part}]") for part in (":90%", "90%:")]
  assert [np.bincount(part.source.labels).tolist() for part in parts] == [[18, 9, 9], [2, 1, 1]]
  found = [part.source[i] for part in parts for i in range(len(part))]
  assert {example["image"] for example in found} == set(pictures)
  for example in found:
    assert example["label"] == _LABELS[pictures.index(example["image"])]


def test_it_is_prepared_once_and_travels_to_workers_by_name(root, offline):
  assert preparation.prepare(f"hf:{root}") == f"--config.data.name=hf:{root}"
  files = {path: path.stat().st_mtime_ns for path in offline.rglob("*.arrow")}
  hf_datasets._opened.cache_clear()
  opened = datasets.open_split(f"hf:{root}", "train")
  assert {path: path.stat().st_mtime_ns for path in offline.rglob("*.arrow")} == files
  packed = pickle.dumps(opened.source)
  assert len(packed) < 10_000 < sum(len(opened.source[i]["image"]) for i in range(40))
  assert pickle.loads(packed)[3] == opened.source[3]


def test_identity_is_that_of_the_images(root, pictures, tmp_path):
  opened = datasets.open_split(f"hf:{root}", "train")
  _dataset(pictures).save_to_disk(tmp_path / "moved")
  assert datasets.open_split(f"hf:{tmp_path}/moved", "train").identity == opened.identity
  for name, other in (("images", _dataset(pictures[::-1])), ("labels", _dataset(pictures, _LABELS[::-1]))):
    other.save_to_disk(tmp_path / name)
    assert datasets.open_split(f"hf:{tmp_path}/{name}", "train").identity != opened.identity


@pytest.mark.slow
@pytest.mark.parametrize("root", ["parquet"], indirect=True)
def test_a_run_resumes_in_other_processes_and_evaluates(root, small_config, tmp_path):
  from mlpvision.evaluate import run as run_lib
  from mlpvision.training import loop

  small_config.data.update(name=f"hf:{root}", train_split="train", eval_split="validation", batch_size=8, workers=0)
  small_config.optim.schedule.warmup = "1 step"
  small_config.update(duration="4 steps", log_every="1 step")
  small_config.checkpoint.every = "2 steps"
  whole = loop.train_and_evaluate(small_config, tmp_path / "run")
  for path in (tmp_path / "run" / "checkpoints").glob("4*"):
    path.rename(tmp_path / path.name)
  small_config.data.workers = 1
  again = loop.train_and_evaluate(small_config, tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, again.state.params, whole.state.params)
  found = run_lib.evaluate(tmp_path / "run")
  assert found["images"] == 10
  assert found["top1"] == whole.metrics["val/top1"]


def test_hidden_labels_and_files_beside_the_dataset(pictures, tmp_path):
  (tmp_path / "a.jpg").write_bytes(pictures[0])
  features = hf.Features(picture=hf.Image(), kind=hf.ClassLabel(names=_CLASSES))
  columns = {"picture": [str(tmp_path / "a.jpg"), None], "kind": [-1, None]}
  hf.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "data")
  opened = datasets.open_split(f"hf:{tmp_path}/data", "train")
  assert opened.source[0] == {"image": pictures[0], "label": -1, "file_name": "a.jpg"}
  assert opened.source[1] == {"image": b"", "label": -1, "file_name": ""}


def _empty(path, whole):
  os.makedirs(path)


def _script(path, whole):
  os.makedirs(path)
  (path / "data.py").write_text("raise SystemExit")
  (path / "a.parquet").write_bytes(b"no parquet")


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (_empty, r"no dataset_dict\.json or state\.json .* folder:"),
    (
      lambda path, whole: whole.remove_columns(["image", "other"]).save_to_disk(path),
      r"has no image; its columns are label \(ClassLabel\), id \(int64\)",
    ),
    (
      lambda path, whole: whole.cast_column("label", hf.Value("int64")).save_to_disk(path),
      r"(?s)has no class label; .*label \(int64\).*class_encode_column",
    ),
    (
      lambda path, whole: whole.rename_columns({"image": "left", "other": "right"}).save_to_disk(path),
      r"(?s)has 2 columns of type Image, left, right; .*select_columns",
    ),
    (lambda path, whole: hf.DatasetDict(a=whole).save_to_disk(path), r"no split 'train', only a.*eval_split"),
    (_script, r"(?s)the library datasets cannot open it by index: .*save_to_disk"),
  ],
)
def test_what_it_refuses(pictures, tmp_path, make, message):
  make(tmp_path / "data", _dataset(pictures, other=hf.Image()))
  with pytest.raises(UserError, match=message):
    datasets.open_split(f"hf:{tmp_path}/data", "train")


def test_names_and_tasks_that_it_refuses(tmp_path):
  for name, message in (
    (f"hf:{tmp_path}/none", "no directory"),
    ("hf:a/b/c", "hf:OWNER/NAME,CONFIG"),
    ("hf:", "write"),
  ):
    with pytest.raises(UserError, match=message):
      datasets.check(name, None)
  datasets.check("hf:ILSVRC/imagenet-1k", None)
  datasets.check("hf:owner/name,config", None)
  for task in ("segmentation", "detection"):
    with pytest.raises(UserError, match="for classification alone"):
      datasets.check(f"hf:{tmp_path}", None, task=task)
  with pytest.raises(UserError, match="hf:nobody/nothing: the library datasets cannot open it"):
    datasets.open_split("hf:nobody/nothing", "train")
