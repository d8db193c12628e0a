"""Odd images train, broken ones are replaced and counted, and evaluation names them."""

import io
import json

import numpy as np
from PIL import Image
import pytest
from tars import photographs

from mlpvision.data import datasets, loader
from mlpvision.errors import UserError
from mlpvision.training import loop


def _encoded(image, kind, **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
  """Ten plain photographs, and one of each oddity, in each of two classes; five of these cannot be read or decoded."""
  pictures = iter(photographs(40, size=(60, 45)))
  for name in ("a", "b"):
    photo = next(pictures)
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    files = {f"plain_{i}.JPEG": _encoded(next(pictures), "JPEG") for i in range(10)} | {
      "cmyk.JPEG": _encoded(photo.convert("CMYK"), "JPEG"),
      "png_by_another_name.JPEG": _encoded(photo, "PNG"),
      "one_pixel.JPEG": _encoded(photo.resize((1, 1)), "JPEG"),
      "grey.JPEG": _encoded(photo.convert("L"), "JPEG"),
      "deep.png": _encoded(deep, "PNG"),
      "truncated.JPEG": _encoded(photo, "JPEG")[:-300],
      "empty.JPEG": b"",
      "text.JPEG": b"not an image at all",
    }
    for part, content in (("train", files), ("val", {"plain.JPEG": files["plain_0.JPEG"]})):
      (tmp_path / part / name).mkdir(parents=True)
      for file, data in content.items():
        (tmp_path / part / name / file).write_bytes(data)
    (tmp_path / "train" / name / "link.JPEG").symlink_to("nowhere")
    (tmp_path / "train" / name / "directory.JPEG").mkdir()
  return tmp_path


@pytest.fixture
def config(small_config, folder):
  small_config.data.update(name=f"folder:{folder}", train_split="train", eval_split="val", batch_size=48)
  small_config.augment.update(crop="random_resized", randaugment="rand-m9-mstd0.5-inc1")
  return small_config


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_counts_what_it_replaced(config, workers, capfd):
  split = datasets.open_split(config.data.name, "train", None)
  assert len(split) == 40
  config.data.workers, config.data.batch_size = workers, 40
  batches = loader.train_batches(split, config, start_step=0)
  for _ in range(2):  # two epochs
    batch = next(batches)
    assert batch["replaced"].sum() == 10
    assert (batch["image"].reshape(40, -1).std(axis=1) > 0).sum() >= 38  # only a single pixel has no contrast
  said = capfd.readouterr().err
  for name in ("truncated.JPEG", "link.JPEG", "directory.JPEG"):  # one in each class
    assert workers or sum(name in line for line in said.splitlines()) == 2  # the second epoch says nothing new


def test_training_goes_on_and_reports_them(config, tmp_path, capsys):
  config.duration, config.log_every, config.optim.schedule.warmup = "4 steps", "2 steps", "0 steps"
  loop.train_and_evaluate(config, str(tmp_path / "run"))
  rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  replaced = [row["train/replaced"] for row in rows if "train/loss" in row]
  assert sum(replaced) >= 4 * 10  # in each step at least every image once, of which ten are broken
  said = capsys.readouterr().out
  assert f"{replaced[0]} broken images since the last line were replaced" in said
  assert "note: data.batch_size is larger than the training split" in said  # 48 of 40


def test_evaluation_names_the_first_one(config):
  split = datasets.open_split(config.data.name, "train", None)
  broken = r"[ab]/(truncated|empty|text|link|directory)\.JPEG"
  with pytest.raises(UserError, match=rf"image \d+ of folder:.*:train.*{broken}"):
    list(loader.eval_batches(split, config))
