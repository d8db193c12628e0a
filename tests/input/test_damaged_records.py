"""array_record files that are cut, changed or gone, before and during a run: one message, which names the file."""

import collections
import itertools
import os
import shutil

import pytest

from mlpvision.data import datasets, loader, prepared
from mlpvision.errors import UserError


def _cut(share):
  return lambda path: os.truncate(path, int(path.stat().st_size * share))


def _flip(path):
  data = bytearray(path.read_bytes())
  for i in range(len(data) // 10, len(data), 50):
    data[i] ^= 4
  path.write_bytes(data)


def _replace(make):
  return lambda path: (path.unlink(), make(path))


_CHANGES = {
  "half": _cut(0.5),
  "a little": _cut(0.95),
  "empty": _cut(0),
  "flipped": _flip,
  "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
  "longer": lambda path: path.write_bytes(path.read_bytes() + b"x" * 100),
  "deleted": lambda path: path.unlink(),
  "a directory": _replace(os.mkdir),
  "a FIFO": _replace(os.mkfifo),
  "a link to nothing": _replace(lambda path: path.symlink_to("nowhere")),
  "another file": lambda path: shutil.copy(path.parent / path.name.replace("train", "test"), path),
}


def _train(batches):
  """Reads every image at least once."""
  collections.deque(itertools.islice(batches, 200), maxlen=0)


@pytest.fixture
def digits(data_dir, tmp_path):
  """(a copy of the digits, the file of their training split)."""
  prepared.open_builder("mnist5k", data_dir)
  shutil.copytree(data_dir / "mnist5k", tmp_path / "mnist5k")
  [path] = (tmp_path / "mnist5k").rglob("mnist5k-train.array_record*")
  return tmp_path, path


@pytest.mark.parametrize("change", _CHANGES)
def test_a_damaged_file_is_named(digits, small_config, change):
  root, path = digits
  _CHANGES[change](path)
  with pytest.raises(UserError, match=f"{path.name} cannot be read: "):
    list(loader.eval_batches(datasets.open_split("mnist5k", "train", root), small_config))
  with pytest.raises(UserError, match=f"{path.name} cannot be read: "):
    _train(loader.train_batches(datasets.open_split("mnist5k", "train", root), small_config, start_step=0))


@pytest.mark.parametrize("change", ["half", "empty", "zeros"])
def test_a_file_that_changes_during_a_run_is_named(digits, small_config, change):
  root, path = digits
  batches = loader.train_batches(datasets.open_split("mnist5k", "train", root), small_config, start_step=0)
  next(batches)
  _CHANGES[change](path)
  with pytest.raises(UserError, match=f"{path.name} cannot be read: "):
    _train(batches)


def test_a_part_without_images_says_so(data_dir):
  for split in ("test[:0]", "test[5:5]", "train[:0%]"):
    with pytest.raises(UserError, match=r"mnist5k contains no images; it has .*test of 1,000"):
      datasets.open_split("mnist5k", split, data_dir)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_damaged_description_is_named(digits, name):
  root, path = digits
  (path.parent / name).write_text('{"name": ')
  with pytest.raises(UserError, match=f"{path.parent} .*damaged"):
    datasets.open_split("mnist5k", "train", root)
