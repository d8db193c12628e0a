"""ImageNet's other test sets, made by tfds's own builders from small folders of their true structure."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from tars import encode, photographs, tar
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered
from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

from mlpvision import models, weights
from mlpvision.data import crops, datasets, imagenet, transforms
from mlpvision.errors import UserError
from mlpvision.evaluate import run
from mlpvision.weights import known

_WNIDS = tuple(imagenet_common.label_names_file().read_text().split())
_VIEW = weights.Preprocessing(mean=(0.4,) * 3, std=(0.3,) * 3, crop_ratio=1.0, image_size=16)
_REAL = [[3, 7], [], [999], [0, 1, 2, 3, 4], [5], [], [8], [12, 13]]


def _local(name, **methods):
  """tfds's builder of `name`, with another source of its files than a download."""
  base = tfds.builder_cls(name)
  with registered.skip_registration():
    return type("Local", (base,), {"name": name, "__module__": base.__module__, **methods})


def _by_class(root, names):
  """root/CLASS/file.jpg, two for each class: what the archives unpack to."""
  pictures = photographs(2 * len(names), size=(24, 20))
  for i, name in enumerate(itertools.chain(names, names)):
    (root / name).mkdir(parents=True, exist_ok=True)
    pictures[i].save(root / name / f"{i}.jpg")
  return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A data_dir with the five sets."""
  root = tmp_path_factory.mktemp("variants")
  only_a, only_r = imagenet.classes("a"), imagenet.classes("r")
  folders = {
    "imagenet_a": _by_class(root / "a", [only_a[0], only_a[5], only_a[199]]),
    "imagenet_r": _by_class(root / "r", [only_r[0], only_r[7], only_r[199]]),
    "imagenet_v2/topimages": _by_class(root / "v2", ["0", "10", "2", "999"]),
  }
  builders = {
    name: _local(
      name.partition("/")[0], _split_generators=lambda self, dl, at=at: {"test": self._generate_examples(at)}
    )
    for name, at in folders.items()
  }

  def sketches(self, dl):
    pictures = photographs(3, size=(24, 20))
    files = ((f"sketch/{wnid}/{wnid}_1.JPEG", encode(p)) for wnid, p in zip(_WNIDS[::400], pictures, strict=True))
    return {"test": self._generate_examples((name, data) for name, data in files)}

  builders["imagenet_sketch"] = _local("imagenet_sketch", _split_generators=sketches)
  manual = root / "manual"
  manual.mkdir()
  names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 9)]
  files = dict(zip(names, map(encode, photographs(8, size=(24, 20))), strict=True))
  tar(manual / "ILSVRC2012_img_val.tar", files)
  real = dict(zip(names, _REAL, strict=True))
  builders["imagenet2012_real"] = _local("imagenet2012_real", _get_real_labels=lambda self, dl: real)
  for name, builder_class in builders.items():
    config = {"config": name.partition("/")[2]} if "/" in name else {}
    builder = builder_class(data_dir=str(root / "data"), file_format="array_record", **config)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual)))
  return root / "data"


@pytest.fixture
def published(tmp_path, monkeypatch):
  """The name of published ImageNet-1K weights of a tiny model, in the cache; and (model, params)."""
  sizes = dict(patch_size=8, num_blocks=1, hidden_dim=16, tokens_mlp_dim=8, channels_mlp_dim=16)
  model = models.create("mixer_b16", num_classes=1000, **sizes)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))["params"]
  random = np.random.default_rng(0)
  params = jax.tree.map(lambda x: random.standard_normal(x.shape, np.float32), shapes)
  entry = dataclasses.replace(
    known.KNOWN["mixer_b16.goog_in1k"], name="tiny", overrides=sizes, preprocessing=_VIEW, suffix=".safetensors"
  )
  monkeypatch.setitem(known.KNOWN, "tiny", entry)
  monkeypatch.setenv("MLPVISION_CACHE", str(tmp_path))
  weights.save(tmp_path / "tiny.safetensors", model, params, _VIEW)
  return "tiny", model, params


def _evaluate(source, small_config, data_dir, name, split="test"):
  small_config.data.update(dict(name=name, data_dir=str(data_dir), eval_split=split))
  small_config.eval.batch_size = 5
  return run.evaluate(source, small_config)


def _logits(model, params, split):
  view = dict(crop_ratio=1.0, interpolation="bicubic")
  images = [transforms.open_image(split.source[i]["image"]) for i in range(len(split))]
  images = np.stack([crops.center_crop(image, 16, **view) for image in images])
  return np.asarray(model.apply({"params": params}, (images / np.float32(255) - 0.4) / 0.3), np.float64)


def _log_softmax(logits):
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_the_table_agrees_with_tfds():
  assert imagenet.classes("1k") == imagenet.head_classes(1000) == _WNIDS
  for which, first, last in (("a", 6, 988), ("r", 1, 988)):
    found = imagenet.classes(which)
    assert len(found) == 200
    assert set(found) < set(_WNIDS)
    assert (found[0], found[-1]) == (_WNIDS[first], _WNIDS[last])
  assert len(set(imagenet.head_classes(21843))) == 21843
  assert imagenet.head_classes(10) is None
  assert imagenet.words("n01443537") == "goldfish, Carassius auratus"
  assert all(imagenet.words(wnid) for wnid in _WNIDS)
  assert imagenet.words("7") is None


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_and_r_are_scored_over_their_200_classes(prepared, published, small_config, name):
  source, model, params = published
  split = datasets.open_split(name, "test", str(prepared))
  assert split.class_names == imagenet.classes(name[-1])
  examples = [split.source[i] for i in range(len(split))]
  assert {example["label"] for example in examples} == ({0, 5, 199} if name[-1] == "a" else {0, 7, 199})
  if name == "imagenet_r":  # its file names have the class, tfds's labels aside
    assert all(split.class_names[e["label"]] == e["file_name"].decode().partition("/")[0] for e in examples)

  found = _evaluate(source, small_config, prepared, name)
  chosen = [i for i, wnid in enumerate(_WNIDS) if wnid in imagenet.classes(name[-1])]
  log_p = _log_softmax(_logits(model, params, split)[:, chosen])
  labels = np.array([example["label"] for example in examples])
  ranking = np.argsort(-log_p, -1)
  assert found["images"] == 6
  assert found["top1"] == (ranking[:, 0] == labels).mean()
  assert found["top5"] == (ranking[:, :5] == labels[:, None]).any(-1).mean()
  np.testing.assert_allclose(found["loss"], -log_p[np.arange(6), labels].mean(), rtol=1e-4)
  assert ["200 of the weights' 1,000 classes" in note for note in found["notes"]] == [True]


def test_v2_and_sketch_have_imagenets_labels(prepared, published, small_config):
  source, model, params = published
  for name, count in (("imagenet_v2/topimages", 8), ("imagenet_sketch", 3)):
    split = datasets.open_split(name, "test", str(prepared))
    assert split.class_names == _WNIDS
    for example in (split.source[i] for i in range(count)):
      folder = example["file_name"].decode().partition("/")[0]
      assert example["label"] == (int(folder) if "v2" in name else _WNIDS.index(folder))
  assert (split.name, len(split)) == ("imagenet_sketch:test", 3)
  found = _evaluate(source, small_config, prepared, "imagenet_sketch")
  log_p = _log_softmax(_logits(model, params, split))
  labels = [split.source[i]["label"] for i in range(3)]
  np.testing.assert_allclose(found["loss"], -log_p[np.arange(3), labels].mean(), rtol=1e-4)
  assert (found["images"], found["notes"]) == (3, [])


def test_real_counts_a_prediction_that_is_among_the_labels(prepared, published, small_config):
  source, model, params = published
  split = datasets.open_split("imagenet2012_real", "validation", str(prepared))
  order = [int(split.source[i]["file_name"][-13:-5]) - 1 for i in range(8)]
  logits, real = _logits(model, params, split), [_REAL[i] for i in order]
  # A model that sees class 3 everywhere is right on the two images that have it among their labels.
  params["head"]["bias"][3] += 1000
  found = _evaluate_params(model, params, split, small_config)
  logits[:, 3] += 1000
  labelled = [i for i in range(8) if real[i]]
  ranking, log_p = np.argsort(-logits, -1), _log_softmax(logits)
  assert found["images"] == len(labelled) == 6
  assert found["top1"] == np.mean([ranking[i, 0] in real[i] for i in labelled]) == 2 / 6
  assert found["top5"] == np.mean([bool(set(ranking[i, :5]) & set(real[i])) for i in labelled])
  np.testing.assert_allclose(found["loss"], np.mean([-log_p[i, real[i]].mean() for i in labelled]), rtol=1e-4)

  found = _evaluate(source, small_config, prepared, "imagenet2012_real", "validation")
  assert ["2 of 8 images have no label" in note for note in found["notes"]] == [True]
  unlabelled = real.index([])
  with pytest.raises(UserError, match="none of the 1 images has a label"):
    _evaluate(source, small_config, prepared, "imagenet2012_real", f"validation[{unlabelled}:{unlabelled + 1}]")


def _evaluate_params(model, params, split, config):
  from mlpvision import sharding
  from mlpvision.evaluate.accuracy import Accuracy

  config.data.update(dict(image_size=16, mean=_VIEW.mean, std=_VIEW.std))
  config.eval.update(dict(batch_size=5, crop_ratio=1.0, interpolation="bicubic"))
  return Accuracy(model, split, config, sharding.make_mesh()).run({"params": params})


def test_real_is_not_trained_on(prepared, small_config):
  from mlpvision.training import setup

  small_config.data.update(
    dict(name="imagenet2012_real", data_dir=str(prepared), train_split="validation", eval_split="validation")
  )
  with pytest.raises(UserError, match="several labels per image"):
    setup.set_up(small_config)


def test_the_commands_say_what_was_done(prepared, published, small_config, here):
  """A folder with three of ImageNet's classes, and words for WordNet ids."""
  source, _, _ = published
  root = _by_class(prepared.parent / "own", ["n02099601", "n01443537", "n02123045"])
  small_config.data.update(dict(name=f"folder:{root}", eval_split="train"))
  found = run.evaluate(source, small_config)
  assert ["3 of the weights' 1,000 classes" in note for note in found["notes"]] == [True]
  picture = next(root.rglob("*.jpg"))
  command = ("-m", "mlpvision.predict", f"--weights={source}", str(picture))
  code, output = here(*command, "--json")
  assert code == 0, output
  (row,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
  assert all(c["name"] in _WNIDS and c["words"] == imagenet.words(c["name"]) for c in row["classes"])
  best = row["classes"][0]
  assert f"%  {best['words']} ({best['name']})\n" in here(*command)[1]
