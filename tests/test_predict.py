"""The command `predict` on many images: what names them, constant memory, tables, and images that cannot be read."""

import csv
import io
import itertools
import json
import os

import jax
import memory
import numpy as np
from PIL import Image
import pytest

import mlpvision
from mlpvision import models, weights
from mlpvision.predict import inputs, stream
from mlpvision.reporting import progress

_VIEW = weights.Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, crop_ratio=1.0, interpolation="bicubic", image_size=32)


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
  """A small S2-MLP with three classes."""
  model = models.create("s2mlp_wide", num_classes=3, hidden_dim=8, num_blocks=1, patch_size=16)
  params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  path = tmp_path_factory.mktemp("weights") / "small.safetensors"
  weights.save(path, model, params, _VIEW, ["cat", "dog", "ünïcode, with a comma"])
  return path


@pytest.fixture
def photos(tmp_path):
  """A directory with images in it and below, and other files."""
  root = tmp_path / "photos"
  for name in ("b.png", "a/7.png", "a/c/7.jpg", "b/7.png"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 50), 90).save(root / name)
  (root / "notes.txt").write_text("no image")
  (root / ".hidden.png").write_bytes(b"")
  os.symlink(root / "a", root / "a" / "c" / "loop")
  return root


def test_what_names_images(photos):
  names, problems = inputs.find([str(photos), f"{photos}/b.png", "-"])
  assert problems == []
  assert names == {f"{photos}/{name}": name for name in ("a/7.png", "a/c/7.jpg", "b/7.png", "b.png")}
  assert list(inputs.find([f"{photos}/*/7.*"])[0].values()) == ["7.png", "7.png"]
  assert len(inputs.find([f"{photos}/**/*.png"])[0]) >= 3
  (photos / "x[1].png").write_bytes(b"")
  assert list(inputs.find([f"{photos}/x[1].png"])[0]) == [f"{photos}/x[1].png"]
  (photos / "empty").mkdir()
  wrong = [f"{photos}/gone.png", f"{photos}/*.gif", f"{photos}/empty"]
  said = ["there is no such file", "no file matches", "there are no images in it"]
  assert inputs.find(wrong) == ({}, [f"{path}: {text}" for path, text in zip(wrong, said, strict=True)])


def test_paths_on_stdin_are_read_as_they_come():
  lines = itertools.chain([b"a/x.png\n", b"\n", b"a/x.png\n", b"caf\xe9.png\r\n", b"known.png\n"], iter(int, 1))
  found = list(itertools.islice(inputs.listed(lines, {"known.png": ""}), 2))
  assert found == [("a/x.png", "x.png"), (os.fsdecode(b"caf\xe9.png"),) * 2]


def test_a_stream_is_what_predict_returns_and_needs_no_end(weight_file, photos):
  trained = mlpvision.load(weight_file)
  paths = sorted(inputs.find([str(photos)])[0])
  (photos / "broken.png").write_bytes(b"no image")
  endless = itertools.cycle([*paths, str(photos / "broken.png")])
  found = list(itertools.islice(stream.stream(trained, endless, top=2, batch_size=4), 12))
  assert [path for path, _, _ in found] == list(itertools.islice(itertools.cycle([*paths, f"{photos}/broken.png"]), 12))
  assert [str(error).partition(":")[0] for _, _, error in found if error] == [f"{photos}/broken.png"] * 2
  expected = dict(zip(paths, trained.predict(paths, top=2), strict=True))
  for path, prediction, error in found:
    if error is None:
      assert [x.name for x in prediction] == [x.name for x in expected[path]]
      np.testing.assert_allclose([x.probability for x in prediction], [x.probability for x in expected[path]], 1e-5)


def test_large_images_are_decoded_one_at_a_time(weight_file, tmp_path):
  trained = mlpvision.load(weight_file)
  path = tmp_path / "large.jpg"
  Image.new("RGB", (3000, 3000), "red").save(path)  # 36 MB as Pillow has it
  list(stream.stream(trained, [str(path)] * 2))
  with memory.limited(60):
    assert sum(error is None for _, _, error in stream.stream(trained, [str(path)] * 8, batch_size=4)) == 8


def test_the_command_predicts_what_it_can_and_writes_tables(here, weight_file, photos, tmp_path, monkeypatch):
  (photos / "a" / "cut.png").write_bytes((photos / "b.png").read_bytes()[:500])
  line = os.fsencode(f"{photos}/b.png\n")
  monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line)))
  files = (f"--csv={tmp_path}/new/found.csv", f"--json={tmp_path}/found.jsonl")
  arguments = (f"--weights={weight_file}", "--top=2", *files, str(photos / "a"), str(photos / "gone"), "-")
  code, said = here("-m", "mlpvision.predict", *arguments)
  assert code == 1
  assert "error: 2 could not be predicted:\n" in said
  assert said.splitlines()[-2].startswith(f"{photos}/gone: there is no such file")
  assert said.splitlines()[-1].startswith(f"{photos}/a/cut.png: a damaged image")
  paths = [f"{photos}/{name}" for name in ("a/7.png", "a/c/7.jpg", "b.png")]
  assert [text for text in said.splitlines() if text.startswith("/")][:3] == paths
  objects = [json.loads(text) for text in (tmp_path / "found.jsonl").read_text().splitlines()]
  assert [found["image"] for found in objects] == paths
  rows = list(csv.DictReader((tmp_path / "new" / "found.csv").open()))
  assert [(row["image"], row["rank"]) for row in rows] == [(path, rank) for path in paths for rank in "12"]
  assert [float(row["probability"]) for row in rows] == [x["probability"] for y in objects for x in y["classes"]]

  code, said = here("-m", "mlpvision.predict", f"--weights={weight_file}", "--json", paths[0])
  assert (code, json.loads(said)["image"]) == (0, paths[0])


def test_progress_of_many_images_fits_the_terminal(monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  monkeypatch.setenv("COLUMNS", "30")
  monkeypatch.setattr(progress.Count, "_SECONDS", (0.0, 0.0))
  shown = Terminal()
  count = progress.Count(1000, shown)
  for _ in range(40):
    count.clear()
    count.add()
  count.close()
  lines = shown.getvalue().split("\r\x1b[K")[1:]
  assert all(len(line) < 30 for line in lines[:-1])
  assert lines[0].startswith("32 of 1,000 images")
  assert lines[-1].startswith("40 images in 0:00, ")
  assert lines[-1].endswith(" images/s\n")
  few = Terminal()
  count = progress.Count(3, few)
  count.add(3)
  count.close()
  assert few.getvalue() == ""
