"""python -m mlpvision.prepare: ImageNet-1K from small tars of the true structure, and what it refuses."""

import http.server
import os
import shutil
import socket
import threading

import numpy as np
import pytest
from tars import encode, photographs, tar, tar_bytes
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.prepare import preparation

_SYNSETS = ("n01440764", "n02105855", "n15075141")


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("manual")
  pictures = iter(photographs(20))
  train = {
    f"{wnid}.tar": tar_bytes({f"{wnid}_{i}.JPEG": encode(next(pictures)) for i in range(4)}) for wnid in _SYNSETS
  }
  tar(path / "ILSVRC2012_img_train.tar", train)
  val = {f"ILSVRC2012_val_{i:08d}.JPEG": encode(next(pictures)) for i in range(1, 9)}
  tar(path / "ILSVRC2012_img_val.tar", val)
  return path


def _prepare(command, name, manual_dir, data_dir):
  return command("-m", "mlpvision.prepare", name, f"--manual_dir={manual_dir}", f"--data_dir={data_dir}")


def test_imagenet2012_from_end_to_end(command, manual_dir, tmp_path, capsys):
  code, output = _prepare(command, "imagenet2012", manual_dir, tmp_path)
  assert code == 0, output
  assert "147,897,477,120" in output
  assert "train: 12 images\n" in output
  assert output.endswith(f"to train on it:\n  --config.data.name=imagenet2012 --config.data.data_dir={tmp_path}\n")
  train = datasets.open_split("imagenet2012", "train", str(tmp_path))
  assert len(train.class_names) == 1000
  for example in (train.source[i] for i in range(12)):
    assert train.class_names[example["label"]] == example["file_name"].decode().partition("_")[0]
  validation = datasets.open_split("imagenet2012", "validation", str(tmp_path))
  expected = imagenet_common.get_validation_labels(str(manual_dir / "ILSVRC2012_img_val.tar"))
  for example in (validation.source[i] for i in range(8)):
    assert validation.class_names[example["label"]] == expected[example["file_name"].decode()]
  assert preparation.prepare("imagenet2012", "/nowhere", tmp_path) in output
  assert "already" in capsys.readouterr().out


def test_missing_archives_are_named(here, manual_dir, tmp_path):
  shutil.copy(manual_dir / "ILSVRC2012_img_val.tar", tmp_path)
  code, output = _prepare(here, "imagenet2012", tmp_path, tmp_path / "data")
  assert code == 2
  assert output.startswith(f"error: imagenet2012: ILSVRC2012_img_train.tar not in {tmp_path}.\n")
  assert "https://image-net.org/download-images" in output
  assert not (tmp_path / "data").exists()


def test_strange_archives_are_refused(manual_dir, tmp_path):
  train, val = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
  for name in (train, val):
    shutil.copy(manual_dir / name, tmp_path)
  cases = (
    (tar_bytes({"train/n01440764/n01440764_1.JPEG": b"x"}), "begins with train/n01440764/.*expected files like n0144"),
    (b"<html>Please log in</html>" * 100, "cannot be read as a tar archive"),
    (b"", "cannot be read as a tar archive"),
    (tar_bytes({}), "is empty"),
  )
  for data, message in cases:
    (tmp_path / train).write_bytes(data)
    with pytest.raises(UserError, match=message):
      preparation.prepare("imagenet2012", tmp_path, tmp_path / "data")


def test_too_little_space_is_noticed_first(manual_dir, tmp_path):
  for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
    shutil.copy(manual_dir / name, tmp_path)
  os.truncate(tmp_path / "ILSVRC2012_img_train.tar", 10**13)  # a sparse file
  with pytest.raises(UserError, match=r"20,000 GB .* are free"):
    preparation.prepare("imagenet2012", tmp_path, tmp_path / "data")


def test_imagenet21k(tmp_path, capsys):
  with pytest.raises(UserError, match=r"imagenet21k/fall11, imagenet21k/winter21, imagenet21k/p"):
    preparation.prepare("imagenet21k", tmp_path, tmp_path)
  with pytest.raises(UserError, match=r"winter21_whole\.tar\.gz not in"):
    preparation.prepare("imagenet21k/winter21_256", tmp_path, tmp_path)
  pictures = photographs(600, size=(24, 16))
  names = [f"n00004475_{i}.JPEG" for i in range(1000, 1600)]  # two of them are held out
  members = {"winter21_whole/n00004475.tar": tar_bytes(dict(zip(names, map(encode, pictures), strict=True)))}
  tar(tmp_path / "winter21_whole.tar.gz", members, "w:gz")
  left = tmp_path / "imagenet21k" / "winter21" / "incomplete.ABCDEF_1.0.0"
  left.mkdir(parents=True)
  line = preparation.prepare("imagenet21k/winter21", tmp_path, tmp_path)
  assert line == f"--config.data.name=imagenet21k/winter21 --config.data.data_dir={tmp_path}"
  output = capsys.readouterr().out
  assert str(left) in output
  assert "1 classes" in output
  assert "19,167" in output
  assert len(datasets.open_split("imagenet21k/winter21", "train", str(tmp_path))) + 4 == 600


def test_other_names(data_dir, tmp_path):
  assert preparation.prepare("mnist5k", None, data_dir).startswith("--config.data.name=mnist5k ")
  with pytest.raises(UserError, match="tfds has no dataset imagenet2013"):
    preparation.prepare("imagenet2013", None, tmp_path)
  with pytest.raises(UserError, match="tfds cannot open mnist/colour"):
    preparation.prepare("mnist/colour", None, tmp_path)


class Digits(tfds.core.GeneratorBasedBuilder):
  """A dataset of one image."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {"image": tfds.features.Image(shape=(2, 2, 1)), "label": tfds.features.ClassLabel(num_classes=2)}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    yield 0, {"image": np.zeros((2, 2, 1), np.uint8), "label": 0}


def test_a_copy_as_tfrecord_is_refused_with_the_command_that_converts_it(tmp_path):
  Digits(data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
  with pytest.raises(UserError, match="tfrecord files"):
    preparation.prepare("digits", None, tmp_path)
  with pytest.raises(UserError, match=r"(?s)tfrecord files.*mlpvision\.prepare digits --data_dir=OTHER_DIR"):
    datasets.open_split("digits", "train", str(tmp_path))


def test_no_name(here):
  code, output = here("-m", "mlpvision.prepare")
  assert code == 2
  assert "name one dataset" in output


@pytest.fixture
def offline(monkeypatch):
  """Everything goes through a proxy on this machine that is not there."""
  with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    port = unused.getsockname()[1]
  for variable in ("http_proxy", "https_proxy"):
    monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
  monkeypatch.delenv("no_proxy", raising=False)


def test_a_missing_network_is_noticed_before_tfds_retries(offline, tmp_path):
  with pytest.raises(UserError) as error:
    preparation.prepare("imagenet_a", None, tmp_path)
  message = str(error.value)
  assert "people.eecs.berkeley.edu cannot be reached" in message
  assert f"{tmp_path}/downloads/manual," in message
  assert "imagenet-a.tar (687,552,512 bytes) from https://people.eecs.berkeley.edu/" in message


def test_what_was_put_there_by_hand_needs_no_network(offline, manual_dir, tmp_path, capsys):
  (tmp_path / "imagenet-a.tar").write_bytes(b"not the real one")
  with pytest.raises(UserError, match=r"(?s)could not prepare imagenet_a.*imagenet-a\.tar"):  # by its checksum
    preparation.prepare("imagenet_a", tmp_path, tmp_path / "data")
  (tmp_path / "imagenetv2-top-images.tar.gz").write_bytes(b"not the real one")
  with pytest.raises(UserError, match=r"could not prepare imagenet_v2/topimages"):
    preparation.prepare("imagenet_v2/topimages", tmp_path, tmp_path / "data")
  assert "warning: huggingface.co cannot be reached" in capsys.readouterr().out
  # imagenet2012_real wants an archive by hand, and labels that tfds downloads.
  with pytest.raises(UserError, match=r"ILSVRC2012_img_val\.tar not in"):
    preparation.prepare("imagenet2012_real", tmp_path, tmp_path / "data")
  with pytest.raises(
    UserError, match=r"(?s)raw\.githubusercontent\.com cannot be reached.*real\.json \(388,478 bytes\)"
  ):
    preparation.prepare("imagenet2012_real", manual_dir, tmp_path / "data")


def test_a_server_that_answers_is_reachable():
  class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
      self.send_error(403)  # some servers answer only what they know

    def log_message(self, *arguments):
      pass

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert preparation._why_unreachable(f"http://127.0.0.1:{server.server_port}/file.tar") is None
    server.shutdown()
  assert "refused" in preparation._why_unreachable(f"http://127.0.0.1:{server.server_port}/file.tar")
