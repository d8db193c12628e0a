"""Folders as the Hugging Face Hub has them, written by timm: weights with a config.json beside them."""

import json
import logging
import shutil

import goldens
import jax
import ml_collections
import numpy as np
from PIL import Image
import pytest

import mlpvision
from mlpvision import sharding, trained as trained_lib, weights
from mlpvision.errors import UserError
from mlpvision.training import warm_start
from mlpvision.weights import names, preprocessings

_TIMM = goldens.DATA / "timm"
_IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture
def mixer(tmp_path):
  """A copy of a folder, to change."""
  return shutil.copytree(_TIMM / "mixer", tmp_path / "mixer")


@pytest.fixture
def plain(tmp_path):
  """A file of timm alone."""
  return shutil.copy(_TIMM / "resmlp" / "pytorch_model.bin", tmp_path / "resmlp.pth")


def _with_config(folder, **changes):
  path = folder / "config.json"
  config = json.loads(path.read_text())
  config["pretrained_cfg"].update(changes.pop("pretrained_cfg", {}))
  path.write_text(json.dumps(config | changes))
  return folder


@pytest.mark.parametrize("name", ["mixer", "resmlp"])
def test_a_folder_gives_timms_numbers_preprocessing_and_classes(name):
  trained = trained_lib.load(_TIMM / name)
  with np.load(_TIMM / "logits.npz") as arrays:
    logits = goldens.apply(trained.model, trained.params, arrays["images"])
    assert goldens.relative_error(logits, arrays[name]) < 1e-5
  config = json.loads((_TIMM / name / "config.json").read_text())
  view = config["pretrained_cfg"]
  expected = (tuple(view["mean"]), tuple(view["std"]), view["crop_pct"], view["interpolation"], view["input_size"][1])
  assert trained.preprocessing == weights.Preprocessing(*expected)
  assert trained.class_names == tuple(config.get("label_names", "01234"))


def test_a_file_takes_the_config_beside_it():
  found = weights.load(_TIMM / "mixer" / "model.safetensors", num_classes=0)
  assert found.info.preprocessing.image_size == 32
  assert found.info.head == "none"
  assert found.module.num_classes is None
  assert found.info.class_names is None


def test_a_config_in_one_level(mixer):
  config = json.loads((mixer / "config.json").read_text())
  config = {key: config[key] for key in ("architecture", "num_features")} | config["pretrained_cfg"]
  (mixer / "config.json").write_text(json.dumps(config))
  assert weights.load(mixer).info.preprocessing == weights.load(_TIMM / "mixer").info.preprocessing


def test_a_tag_of_imagenet_names_the_classes_of_its_head(mixer):
  folder = _with_config(mixer, num_classes=1000, label_names=None, pretrained_cfg=dict(tag="goog_in1k"))
  loaded = weights.load(_TIMM / "mixer", num_classes=1000)
  weights.save(folder / "model.safetensors", loaded.module, loaded.params)
  assert trained_lib.load(folder).class_names[0] == "n01440764"
  assert not weights.load(folder, num_classes=1001).info.on_imagenet


def test_the_config_of_other_weights_is_left_out(mixer, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    info = weights.load(_with_config(mixer, num_classes=7, label_names=None)).info
  assert "is for 7 classes, but the weights have 5" in caplog.text
  assert info.preprocessing is None


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    (dict(mean=[0.5]), None),  # timm repeats a single number
    (dict(mean=[1, 2]), "must be three numbers"),
    (dict(mean="abc"), "mean="),
    (dict(mean=3), "preprocessing is not possible"),
    (dict(std=None), "'std'"),
    (dict(interpolation="lanczos"), "must be bicubic or bilinear"),
    (dict(crop_mode="squash"), "crop_mode=squash: must be center"),
    (dict(input_size=[1, 32, 32]), "3 channels"),
    (dict(input_size=[3, 10**9, 2]), "image_size="),
    (dict(input_size=32), "preprocessing is not possible"),
  ],
)
def test_a_preprocessing_that_is_not_possible(mixer, changes, problem):
  _with_config(mixer, pretrained_cfg=changes)
  if problem is None:
    assert weights.load(mixer).info.preprocessing.mean == (0.5,) * 3
    return
  with pytest.raises(weights.WeightsError, match=problem) as error:
    weights.load(mixer)
  assert str(error.value).startswith(str(mixer / "config.json"))
  assert weights.load(mixer, preprocessing="mixer_b16.goog_in1k").info.preprocessing.image_size == 32


@pytest.mark.parametrize(
  "text",
  [
    "",
    "{",
    "[" * 100_000,
    '{"architecture": 1, "pretrained_cfg": []}',
    '{"architecture": 1, "label_names": [2]}',
    '{"architecture": 1, "label_names": ["a"], "num_classes": 5}',
  ],
)
def test_a_damaged_config(mixer, text):
  (mixer / "config.json").write_text(text)
  with pytest.raises(weights.WeightsError, match=r"config.json: is no config.json of timm"):
    weights.load(mixer)


@pytest.mark.parametrize("text", ["[]", '{"model_type": "vit"}'])
def test_the_config_of_another_program_says_nothing(mixer, text):
  (mixer / "config.json").write_text(text)
  assert weights.load(mixer).info.preprocessing is None


def test_folders_with_several_files_or_none(mixer, tmp_path):
  for name in ("a.pth", "b.pth"):
    shutil.copy(_TIMM / "resmlp" / "pytorch_model.bin", mixer / name)
  assert weights.load(mixer).info.path == str(mixer / "model.safetensors")
  (mixer / "model.safetensors").unlink()
  with pytest.raises(weights.WeightsError, match=r"a directory with 2 weight files\nName one: a.pth, b.pth"):
    weights.load(mixer)
  (tmp_path / "empty").mkdir()
  with pytest.raises(weights.WeightsError, match="a directory without a weight file, such as model.safetensors"):
    weights.load(tmp_path / "empty")


def test_a_file_alone_needs_a_preprocessing(plain):
  with pytest.raises(UserError, match="does not specify its preprocessing") as error:
    mlpvision.load(plain)
  first, *lines = str(error.value).splitlines()
  assert len(lines) == 6
  assert "resmlp_" in lines[0]
  assert all("32 pixels" in line for line in lines)
  trained = mlpvision.load(plain, preprocessing="resmlp_12_224.fb_in1k")
  assert trained.preprocessing == weights.Preprocessing(**_IMAGENET, image_size=32)
  given = weights.Preprocessing(**_IMAGENET, crop_ratio=1.0, image_size=32)
  assert mlpvision.load(plain, preprocessing=given).preprocessing == given
  with pytest.raises(UserError, match=r"Did you mean resmlp_12_224\.fb_in1k"):
    mlpvision.load(plain, preprocessing="resmlp_12_224")


def test_what_fits_is_different_and_first_of_the_same_model():
  """Also for a model that takes any size: as published, if its patches divide that."""
  module, params, info = goldens.loaded("asmlp")
  found = preprocessings.fitting(info.model_name, module, params)
  assert next(iter(found)) == "asmlp_tiny.official"
  assert len(set(found.values())) == len(found)
  assert {view.image_size for view in found.values()} <= {224, 384}


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    (
      "mixer_b16",
      "Did you mean mixer_b16.goog_in1k or mixer_b16.goog_in21k or mixer_b16.goog_sam_in1k or mixer_b16_224",
    ),
    ("Mixer-B16", "Did you mean mixer_b16.goog_in1k"),
    ("mixer_b61", "Did you mean mixer_b16.goog_in1k or mixer_b16.goog_in21k"),
    ("mixer_s16", "mixer_s16 is a model without published weights"),
    ("deit_small", "Did you mean deit_small_patch16_224.fb_in1k?"),
    ("swin_tiny", "Did you mean swin_tiny_patch4_window7_224.ms_in1k or swin_tiny.official?"),
    ("s2mlp_wide", "s2mlp_wide is a model without published weights"),
    ("timm/resnet18.a1_in1k", "On the Hugging Face Hub, its name would be hf://timm/resnet18.a1_in1k"),
    ("nonsense", ""),
  ],
)
def test_near_names(name, expected):
  assert names.hint(name).startswith(expected)
  assert bool(names.hint(name)) == bool(expected)


def test_commands_take_folders_and_files(here, plain, tmp_path):
  picture = tmp_path / "noise.png"
  Image.effect_noise((40, 30), 80).save(picture)
  code, output = here("-m", "mlpvision.predict", f"--weights={_TIMM / 'mixer'}", "--top=1", str(picture))
  assert code == 0, output
  assert any(name in output.splitlines()[-1] for name in ("ant", "bee", "cat", "dog", "eel"))
  code, output = here("-m", "mlpvision.predict", f"--weights={plain}", str(picture))
  assert code == 2
  assert "--preprocessing=" in output
  written = tmp_path / "written.safetensors"
  flags = (f"--weights={plain}", "--preprocessing=resmlp_12_224.fb_in1k", "--format=safetensors")
  code, output = here("-m", "mlpvision.export", *flags, f"--output={written}")
  assert code == 0, output
  again = mlpvision.load(written)
  assert again.preprocessing.mean == _IMAGENET["mean"]
  jax.tree.map(np.testing.assert_array_equal, again.params, weights.load(plain).params)


def test_a_warm_start_takes_a_folder(small_config):
  """It has the folder's sizes, its classes and what it expects of an image."""
  small_config.model = ml_collections.ConfigDict(dict(name="mixer_b16", dtype="float32", remat="none"))
  small_config.data.image_size = 32
  small_config.init_from = str(_TIMM / "mixer")
  source = warm_start.open_source(small_config, sharding.make_mesh(), ("ant", "bee", "cat", "dog", "eel"))
  config = warm_start.completed(small_config, source)
  assert (config.model.hidden_dim, config.model.num_blocks) == (16, 2)
  assert source.info.head == "file"
  assert source.preprocessing.crop_ratio == 0.875
