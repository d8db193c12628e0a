"""The page to try a model: it answers as predict does, says what is wrong with an image, and needs no network."""

import contextlib
import io
import re
import shutil
import signal
import socket
import sys
import zlib

import detectors
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

import mlpvision
from mlpvision import config as config_lib, models, tasks, weights
from mlpvision.checkpoints import Checkpoints
from mlpvision.demo import answers
from mlpvision.reporting import detections, label_maps
from mlpvision.training.step import TrainState

_VIEW = weights.Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, crop_ratio=1.0, interpolation="bilinear", image_size=28)
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with a small classifier and an image."""
  path = tmp_path_factory.mktemp("demo")
  model = models.create("s2mlp_wide", num_classes=6, num_blocks=1, hidden_dim=16, patch_size=4)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32))["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
  names = [f"class <{i}>" for i in range(6)]
  weights.save(path / "model.safetensors", model, params, _VIEW, names)
  Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(path / "photo.png")
  return path


@contextlib.contextmanager
def _served(trained, folder):
  """A client of Gradio for the page of a model."""
  pytest.importorskip("gradio")
  import gradio_client

  from mlpvision.demo import page

  shown = page.make(trained)
  yield gradio_client.Client(page.serve(shown, "127.0.0.1", None), verbose=False, download_files=folder / "received")
  shown.close(verbose=False)


@pytest.fixture(scope="module")
def client(folder):
  with _served(mlpvision.load(folder / "model.safetensors"), folder) as found:
    yield found


def _answers(client, path):
  """All answers for a file, first to last."""
  import gradio_client

  job = client.submit(gradio_client.handle_file(str(path)), api_name="/predict")
  job.result(timeout=300)
  return job.outputs()


def test_the_answer_is_that_of_predict(client, folder):
  answers = _answers(client, folder / "photo.png")
  (expected,) = mlpvision.load(folder / "model.safetensors").predict(folder / "photo.png", top=5)
  for classes, *_ in answers:
    found = [(x["label"], x["confidence"]) for x in classes["confidences"]]
    assert found == [(x.name, x.probability) for x in expected]
  assert [sum(picture is not None for picture in pictures) for _, *pictures in answers] == [0, 1, 2]
  for picture in answers[-1][1:]:
    with Image.open(picture) as opened:
      assert min(opened.size) > 200
      assert np.asarray(opened.convert("L")).std() > 10


@pytest.fixture(scope="module")
def dense(segmenter, tmp_path_factory):
  """{task: a tiny model with random parameters, which finds something}."""
  workdir, config, rng = tmp_path_factory.mktemp("detector"), detectors.config("none"), np.random.default_rng(0)
  model = tasks.make_model(config, 2)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))["params"]
  params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32), shapes)
  params["bbox_head"]["fc_cls"]["bias"] = jnp.asarray([0, 3, 0], jnp.float32)  # the last one is the background's
  checkpoints = Checkpoints(workdir, keep=1)
  state = TrainState(jnp.zeros((), jnp.int32), params, None, {"count": jnp.zeros(())})
  checkpoints.save(0, state, {"config": config_lib.to_json(config), "class_names": ["green", "orange"]})
  checkpoints.close()

  found = {"segmentation": mlpvision.load(segmenter), "detection": mlpvision.load(workdir)}
  head = found["segmentation"].params["decode_head"]
  kernel = rng.normal(size=head["conv_seg"]["kernel"].shape).astype(np.float32)
  head["conv_seg"] = head["conv_seg"] | {"kernel": kernel}
  return found


def _overlay(trained, path):
  """(rows or shares, picture uint8 [H, W, 3]) as predict has them."""
  (found,), image = trained.predict(path), np.asarray(Image.open(path))
  if trained.task is tasks.segmentation:
    areas = [(i, found.class_names[i], count / found.labels.size) for i, count in found.areas()]
    return {name: share for _, name, share in areas}, label_maps.to_overlay_png(image, found.labels, areas)
  sure = found.scores >= 0.3
  rows = [
    [round(float(x), 3), found.class_names[i]] for x, i in zip(found.scores[sure], found.labels[sure], strict=True)
  ]
  return rows, detections.to_overlay_png(image, found, 0.3)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_dense_tasks_have_overlays(dense, folder, task):
  path = folder / "photo.png"
  ((said, picture),) = answers.make(dense[task]).of(path)
  expected, png = _overlay(dense[task], path)
  assert len(said) == len(expected) > 0
  assert said == expected if task == "segmentation" else [row[:2] for row in said] == expected
  np.testing.assert_array_equal(picture, Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_the_page_shows_the_overlay(dense, folder, task):
  with _served(dense[task], folder) as client:
    ((said, picture),) = _answers(client, folder / "photo.png")
  ((expected, drawn),) = answers.make(dense[task]).of(folder / "photo.png")
  if task == "segmentation":
    assert [(x["label"], x["confidence"]) for x in said["confidences"]] == list(expected.items())[: answers.TOP]
  else:
    assert (said["headers"], said["data"]) == (list(answers.COLUMNS), expected)
  np.testing.assert_array_equal(Image.open(picture).convert("RGB"), drawn.convert("RGB"))


def _huge_png():
  """A PNG of 20,000 x 20,000 black pixels in few bytes."""
  data = zlib.compress(b"\0" * 20_001, 9)
  header = (20_000).to_bytes(4) * 2 + b"\x08\x00\x00\x00\x00"
  chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4) for kind, body in chunks
  )


@pytest.mark.parametrize(
  ("name", "data", "message"),
  [
    ("notes.jpg", b"These are notes.", "notes.jpg: not an image"),
    ("large.png", _huge_png(), "large.png: too large ("),
    ("empty.png", b"", "empty.png: "),
  ],
)
def test_what_is_wrong_with_an_image_is_said(client, folder, name, data, message):
  (folder / name).write_bytes(data)
  with pytest.raises(Exception, match=re.escape(message)) as error:
    _answers(client, folder / name)
  assert "/" not in str(error.value).partition(message)[0]  # nothing of where uploads lie


def test_a_port_in_use_is_an_error(here, folder):
  pytest.importorskip("gradio")
  with socket.create_server(("127.0.0.1", 0)) as other:
    port = other.getsockname()[1]
    code, output = here("-m", "mlpvision.demo", f"--weights={folder / 'model.safetensors'}", f"--port={port}")
  assert code == 2
  assert f"error: --host=127.0.0.1 --port={port}: cannot listen there" in output


def test_without_its_library(here, monkeypatch):
  monkeypatch.setitem(sys.modules, "gradio", None)
  code, output = here("-m", "mlpvision.demo", "--weights=none")
  assert code == 2
  assert "pip install 'mlpvision[demo]'" in output


@pytest.mark.slow
def test_in_a_browser(start, folder):
  """A dropped image is answered as by predict, no request leaves the machine, and Ctrl-C ends the command."""
  pytest.importorskip("gradio")
  playwright = pytest.importorskip("playwright.sync_api")
  if _CHROMIUM is None:
    pytest.skip("needs Chromium")
  weights_file, picture = folder / "model.safetensors", folder / "photo.png"
  demo = start("-m", "mlpvision", "demo", f"--weights={weights_file}")
  line = next(line for line in demo.stdout if "Ctrl-C" in line)
  requests = []
  with playwright.sync_playwright() as library:
    browser = library.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
    page = browser.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.goto(line.split()[0])
    _drop(page, picture)
    for caption in ("Saliency", "Feature maps"):
      page.locator(f".block:has-text('{caption}') img[src]").wait_for(timeout=300_000)
    shown = page.locator("[data-testid=label-output-value], .label").first.inner_text()
    lines = page.locator("body").inner_text()
    browser.close()
  (expected,) = mlpvision.load(weights_file).predict(picture, top=5)
  assert expected[0].name in shown
  for prediction in expected:
    assert re.search(rf"{re.escape(prediction.name)}\s+{prediction.probability:.0%}", lines), lines
  assert requests
  assert [url for url in requests if not url.startswith((line.split()[0], "data:", "blob:"))] == []
  demo.send_signal(signal.SIGINT)
  assert demo.wait(60) == 0
  assert "Traceback" not in demo.stdout.read()


def _drop(page, path):
  """Drops a file on the page's image, as from a file manager."""
  transfer = page.evaluate_handle(
    """([name, data]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(data)], name, {type: "image/png"}));
      return transfer;
    }""",
    [path.name, list(path.read_bytes())],
  )
  target = page.locator("button:has-text('Drop Image Here')")
  target.wait_for(timeout=60_000)
  for event in ("dragenter", "dragover", "drop"):
    target.dispatch_event(event, {"dataTransfer": transfer})
