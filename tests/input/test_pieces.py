"""Preparing in pieces: any number of processes writes the same bytes, and what a killed one has written is kept."""

import fcntl
import os
import shutil
import signal
import sys

import numpy as np
import pytest
from tars import encode, photographs, tar, tar_bytes
import tensorflow_datasets as tfds

from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.prepare import pieces, preparation, processes
from mlpvision.prepare.builders import imagenet21k

_WNIDS = tuple(f"n0000000{i}" for i in range(6))
_PIECE = 20_000  # bytes: a class is one piece
_SHARDS = 3  # of each split

# A preparation that is killed: in its main process, once _wait or write_shard has been called a few times.
_KILLED = f"""
import os, signal, sys
from mlpvision.prepare import parts, processes
from mlpvision.prepare.builders import imagenet21k
import tensorflow_datasets as tfds

def killing(module, name, calls):
  original = getattr(module, name)
  def function(*arguments):
    nonlocal calls
    calls -= 1
    if not calls:
      os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
  setattr(module, name, function)

if __name__ == "__main__":
  imagenet21k._PIECE = {_PIECE}
  manual, data, count, name, calls = sys.argv[1:]
  killing(processes if name == "_wait" else parts, name, int(calls))
  builder = imagenet21k.Imagenet21k(config=imagenet21k.config("fall11"), data_dir=data, file_format="array_record")
  builder.processes = int(count)
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual, num_shards={_SHARDS}))
"""


@pytest.fixture(scope="module")
def classes():
  """{class: {name: bytes}}: six images in training and three in validation; one is broken, and one is there twice."""
  pictures, found = iter(photographs(60, size=(80, 60))), {}
  for wnid in _WNIDS:
    names = [f"{wnid}_{i}.JPEG" for i in range(2000)]
    held_out = [name for name in names if imagenet21k.is_held_out(name)][:3]
    found[wnid] = {name: encode(next(pictures)) for name in names[:6] + held_out}
  found[_WNIDS[1]][f"{_WNIDS[1]}_0.JPEG"] = b"broken"
  found[_WNIDS[4]][f"{_WNIDS[2]}_0.JPEG"] = encode(next(pictures))
  return found


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
  monkeypatch.setattr(imagenet21k, "_PIECE", _PIECE)


def _builder(name, root):
  options = {"data_dir": str(root / "data"), "file_format": "array_record"}
  return imagenet21k.Imagenet21k(config=imagenet21k.config(name), **options)


def _prepare(name, root, count=1):
  builder = _builder(name, root)
  builder.processes = count
  config = tfds.download.DownloadConfig(manual_dir=str(root / "manual"), num_shards=_SHARDS)
  builder.download_and_prepare(download_config=config)
  return root / f"data/imagenet21k/{name}/1.0.0"


def _content(path):
  return {file.name: file.read_bytes() for file in path.iterdir()}


def _examples(root, name, split):
  opened = datasets.open_split(f"imagenet21k/{name}", split, str(root / "data"))
  return [opened.source[i] for i in range(len(opened))]


@pytest.fixture(scope="module")
def fall11(tmp_path_factory, classes):
  """(its directory, of which "manual" has the archive; what one process prepared)."""
  root = tmp_path_factory.mktemp("fall11")
  (root / "manual").mkdir()
  tar(root / "manual/fall11_whole.tar", {f"{wnid}.tar": tar_bytes(files) for wnid, files in classes.items()})
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(imagenet21k, "_PIECE", _PIECE)
    return root, _content(_prepare("fall11", root))


@pytest.fixture(scope="module")
def winter21(tmp_path_factory, classes):
  """The same, of a gzipped archive."""
  root = tmp_path_factory.mktemp("winter21")
  (root / "manual").mkdir()
  inner = {f"winter21_whole/{wnid}.tar": tar_bytes(files) for wnid, files in classes.items()}
  tar(root / "manual/winter21_whole.tar.gz", inner, "w:gz")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(imagenet21k, "_PIECE", _PIECE)
    return root, _content(_prepare("winter21", root))


def test_the_order_is_that_of_tfds(fall11, classes):
  root, content = fall11
  hasher = tfds.core.hashing.Hasher("train")
  names = [example["file_name"].decode() for example in _examples(root, "fall11", "train")]
  assert names == sorted(names, key=hasher.hash_key)
  assert len(names) == 6 * 6 - 1
  assert sum("array_record" in name for name in content) == 2 * _SHARDS
  report = content["report_train.txt"].decode().splitlines()
  assert report[0].startswith(f"skipped\t{_WNIDS[1]}_0.JPEG\t")
  assert report[1:] == [
    f"skipped\t{_WNIDS[2]}_0.JPEG\ta second file of this name",
    "# train: 35 stored, 0 re-encoded, 2 skipped",
  ]
  first = next(example for example in _examples(root, "fall11", "train") if example["file_name"].decode() == names[0])
  assert first["image"] == classes[names[0].partition("_")[0]][names[0]]


def test_two_processes_write_the_same_bytes(winter21, tmp_path):
  root, content = winter21
  shutil.copytree(root / "manual", tmp_path / "manual")
  assert _content(_prepare("winter21", tmp_path, count=2)) == content


def test_a_killed_preparation_continues(start, fall11, tmp_path):
  root, content = fall11
  shutil.copytree(root / "manual", tmp_path / "manual")
  (tmp_path / "killed.py").write_text(_KILLED)
  unfinished = tmp_path / "data/imagenet21k/fall11/unfinished.1.0.0"

  def kill(*how):
    process = start(tmp_path / "killed.py", tmp_path / "manual", tmp_path / "data", *map(str, how))
    process.communicate(timeout=60)  # until its processes have closed the pipe, too
    assert process.returncode == -signal.SIGKILL

  def written(pattern):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in unfinished.glob(pattern)}

  kill(2, "_wait", 3)
  parts = written("*.data")
  finished = {name: parts[name] for name in parts if (unfinished / name).with_suffix(".index").exists()}
  assert 0 < len(finished) < len(_WNIDS)
  kill(1, "write_shard", 4)
  assert written("*.data").items() >= finished.items()
  assert len(written("[0-9].index")) == len(_WNIDS)  # others may be incomplete
  shards = written("shards/*")
  assert len(shards) == 3

  kept = sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file())
  assert _builder("fall11", tmp_path).bytes_kept() == kept > 0
  prepared = _prepare("fall11", tmp_path)
  assert _content(prepared) == content
  assert {name: ((prepared / name).stat().st_ino, (prepared / name).stat().st_mtime_ns) for name in shards} == shards
  assert not unfinished.exists()


def test_parts_of_another_archive_are_not_used(fall11, tmp_path, monkeypatch, capsys):
  root, content = fall11
  shutil.copytree(root / "manual", tmp_path / "manual")
  monkeypatch.setattr(imagenet21k, "as_jpeg", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    _prepare("fall11", tmp_path)
  monkeypatch.undo()
  monkeypatch.setattr(imagenet21k, "_PIECE", 2 * _PIECE)
  assert _content(_prepare("fall11", tmp_path)) == content
  assert "starting anew" in capsys.readouterr().out


def test_one_preparation_at_a_time(fall11, tmp_path):
  shutil.copytree(fall11[0] / "manual", tmp_path / "manual")
  folder = tmp_path / "data/imagenet21k/fall11/unfinished.1.0.0"
  folder.mkdir(parents=True)
  with (folder / "lock").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process prepares this dataset"):
      _prepare("fall11", tmp_path)


def test_a_killed_process_is_named():
  with processes.Pool(2) as pool:
    with pytest.raises(ValueError, match="invalid literal"):
      pool.run(int, [("1",), ("x",), ("2",)])
    with pytest.raises(UserError, match="a process was killed.*--processes"):
      pool.run(os._exit, [(1,)])


def test_the_command(here, fall11, tmp_path, monkeypatch):
  root, _ = fall11
  command = ("-m", "mlpvision.prepare", "imagenet21k/fall11", f"--manual_dir={root}/manual", f"--data_dir={tmp_path}")
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  code, output = here(*command, "--beam_pipeline_options=runner=DirectRunner")
  assert code == 2
  assert "pip install 'mlpvision[beam]'" in output
  code, output = here(*command, "--processes=1")
  assert code == 0
  assert "if interrupted, the same command continues" in output
  assert "  train: 35 images\n" in output


def test_beam_is_for_datasets_in_pieces(tmp_path):
  with pytest.raises(UserError, match="mnist5k is not prepared with Apache Beam"):
    preparation.prepare("mnist5k", tmp_path, tmp_path, beam_pipeline_options="runner=DirectRunner")


def test_examples_are_packed_as_they_are():
  features = {
    "image": b"\0\1",
    "text": "\u00e9",
    "list": [True, "a"],
    "empty": np.empty((0, 4)),
    "array": np.arange(6, dtype=np.float32).reshape(2, 3) / 3,
  }
  key, found = pieces.unpack(memoryview(pieces.Example("train", 7, features).pack()))
  assert key == 7
  assert found.keys() == features.keys()
  for name, value in features.items():
    assert type(found[name]) is type(value)
    np.testing.assert_array_equal(found[name], value)
    if isinstance(value, np.ndarray):
      assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)


def test_beam_makes_the_same_dataset(winter21, tmp_path):
  pytest.importorskip("apache_beam", reason="of the extra beam")
  root, content = winter21
  shutil.copytree(root / "manual", tmp_path / "manual")
  preparation.prepare(
    "imagenet21k/winter21", tmp_path / "manual", tmp_path / "data", beam_pipeline_options="runner=DirectRunner"
  )
  for split in ("train", "validation"):
    found, expected = (_examples(path, "winter21", split) for path in (tmp_path, root))
    # Of two files with one name, Beam keeps any.
    assert [e["file_name"] for e in found] == [e["file_name"] for e in expected]
    assert sum(a != b for a, b in zip(found, expected, strict=True)) <= 1
  kept = (tmp_path / "data/imagenet21k/winter21_whole.tar.gz.classes.txt").read_text().splitlines()
  assert tuple(kept[1:]) == _WNIDS
  report = (tmp_path / "data/imagenet21k/winter21/1.0.0/report_train.txt").read_bytes().splitlines()
  assert report[0] == content["report_train.txt"].splitlines()[0]


def test_what_stops_beam_is_said(winter21, tmp_path):
  pytest.importorskip("apache_beam", reason="of the extra beam")
  data = (winter21[0] / "manual/winter21_whole.tar.gz").read_bytes()[:-3000]
  (tmp_path / "winter21_whole.tar.gz").write_bytes(data)
  first_line = f"# winter21_whole.tar.gz, {len(data)} bytes"
  (tmp_path / "winter21_whole.tar.gz.classes.txt").write_text("\n".join([first_line, *_WNIDS]))
  with pytest.raises(UserError, match=r"winter21_whole\.tar\.gz is damaged"):
    preparation.prepare(
      "imagenet21k/winter21", tmp_path, tmp_path / "data", beam_pipeline_options="runner=DirectRunner"
    )
