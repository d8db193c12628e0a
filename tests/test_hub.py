"""Models for the Hugging Face Hub: folders that timm and this package read, uploads, and what is loaded from there."""

import json
import os
import shutil
import sys

import goldens
import hub_server
import huggingface_hub
import jax
import numpy as np
from PIL import Image
import pytest
from safetensors.numpy import load_file

import mlpvision
from mlpvision import models, weights
from mlpvision.errors import UserError
from mlpvision.export import hub, model_card, timm_config
from mlpvision.weights import files, timm_config as read_config

_TIMM = goldens.DATA / "timm"


def _random(name, path, image_size, class_names=None, **options):
  """A loaded model with random parameters; drawn by NumPy, because compiling `init` takes longer."""
  model, rng = models.create(name, num_classes=3, **options), np.random.default_rng(0)
  params = jax.tree.map(
    lambda shape: rng.normal(0, 0.05, shape).astype(np.float32),
    goldens.shapes(model, image_size),
    is_leaf=lambda x: isinstance(x, tuple),
  )
  view = weights.Preprocessing((0.4, 0.5, 0.6), (0.2,) * 3, crop_ratio=0.9, image_size=image_size)
  weights.save(path / "weights.safetensors", model, params, view, class_names)
  return mlpvision.load(path / "weights.safetensors")


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("s2mlp_wide", dict(num_blocks=1, hidden_dim=8, directions="eight")),
    ("asmlp_tiny", dict(depths=(1, 1), hidden_dim=8, shift_size=3)),
    ("mixer_b16", dict(num_blocks=1, hidden_dim=8, tokens_mlp_dim=4, channels_mlp_dim=8)),
  ],
)
def test_every_model_comes_back_from_its_folder(name, options, tmp_path):
  trained = _random(name, tmp_path, 32, class_names=("n01440764", "cat", "<dog>"), **options)
  hub.to_folder(trained, tmp_path / "folder")
  assert sorted(os.listdir(tmp_path / "folder")) == ["README.md", "config.json", "model.safetensors"]
  again = mlpvision.load(tmp_path / "folder")
  assert again.model == trained.model
  jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)
  assert (again.preprocessing, again.class_names) == (trained.preprocessing, trained.class_names)
  config = json.loads((tmp_path / "folder" / "config.json").read_text())
  assert config["architecture"] == f"mlpvision_{trained.model_name}"
  assert "tench" in config["label_descriptions"]["n01440764"]
  found = read_config.beside(tmp_path / "folder" / "model.safetensors")
  assert (found.preprocessing(), found.class_names) == (trained.preprocessing, trained.class_names)


@pytest.mark.parametrize("name", ["mixer", "resmlp"])
def test_a_folder_of_timm_is_written_as_timm_wrote_it(name, tmp_path):
  hub.to_folder(mlpvision.load(_TIMM / name), tmp_path)
  arrays = load_file(tmp_path / "model.safetensors")
  if name == "mixer":
    expected = load_file(_TIMM / name / "model.safetensors")
  else:
    file = files.WeightFile(_TIMM / name / "pytorch_model.bin")
    expected = {key: file.read(key) for key in file.names}
  assert arrays.keys() == expected.keys()
  for key, array in expected.items():
    np.testing.assert_array_equal(arrays[key], array, err_msg=key)
  config, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, _TIMM / name))
  assert config["pretrained_cfg"].items() <= theirs["pretrained_cfg"].items()
  for key in ("num_classes", "num_features", "label_names"):
    assert config.get(key) == theirs.get(key)


@pytest.mark.parametrize(
  ("name", "options", "image_size", "expected"),
  [
    ("mixer_b16", {}, 224, ("mixer_b16_224", {})),
    ("mixer_b16", dict(drop_path=0.1, num_classes=7, head_bias_init=-6.9), 64, ("mixer_b16_224", {"img_size": 64})),
    ("resmlp_s36", {}, 224, ("resmlp_36_224", {})),
    ("resmlp_b24_16", {}, 224, None),
    ("mixer_b16", dict(hidden_dim=64), 224, None),
    ("swin_base_384", {}, 384, ("swin_base_patch4_window12_384", {})),
    ("swin_tiny", {}, 256, None),
    ("swin_tiny", dict(window_padding="before_shift"), 224, None),
    ("asmlp_tiny", {}, 224, None),
    ("poolformer_s12", {}, 224, None),  # timm's pools before its last norm
  ],
)
def test_architectures_of_timm(name, options, image_size, expected):
  found = timm_config.architecture(models.create(name, **options), image_size)
  assert (found and (found.name, found.arguments)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "image_size"),
  [("mixer_s32", 64), ("resmlp_s12", 64), ("gmlp_ti16", 64), ("vit_s16", 64), ("swin_tiny", 224)],
)
def test_timm_loads_the_folder_and_computes_the_same(name, image_size, tmp_path):
  timm = pytest.importorskip("timm", reason="timm (and torch) is not installed: pip install -e '.[torch]'")
  import torch

  options = dict(approximate_gelu=False) if name.startswith("mixer") else {}
  trained = _random(name, tmp_path, image_size, **options)
  hub.to_folder(trained, tmp_path / "folder")
  images = np.random.default_rng(1).normal(size=(2, image_size, image_size, 3)).astype(np.float32)
  expected = goldens.apply(trained.model, trained.params, images)
  model = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
  with torch.no_grad():
    logits = model(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
  assert goldens.relative_error(logits, expected) < 1e-5
  assert model.pretrained_cfg["input_size"][1] == image_size
  assert model.pretrained_cfg["mean"] == list(trained.preprocessing.mean)


def test_the_card_says_what_is_known(tmp_path):
  trained = _random("mixer_s32", tmp_path, 64, num_blocks=8)
  card = huggingface_hub.ModelCard(model_card.text(trained, license_name="mit", repository="me/mine"))
  assert card.data.license == "mit"
  assert card.data.library_name == "timm"
  assert "hf-hub:me/mine" in card.text
  assert "tanh approximation" in card.text
  assert "## Metrics\n\nNot stated." in card.text
  assert huggingface_hub.ModelCard(model_card.text(trained)).data.license is None


_SCRIPT = """
import sys, mlpvision
from mlpvision.errors import UserError
from mlpvision.export import hub
def attempt(function, *arguments):
  try:
    print(function(*arguments))
  except UserError as error:
    print(str(error).replace(chr(10), " "))
attempt(hub.push, sys.argv[1], "me/mine")
for source in ("me/mine", "me/mine@main", "me/mine@v2", "me/other", "me/empty", "mine"):
  attempt(mlpvision.load, "hf://" + source)
import huggingface_hub.constants
huggingface_hub.constants.HF_HUB_OFFLINE = True
attempt(mlpvision.load, "hf://me/mine")
"""


def test_a_folder_goes_to_the_hub_and_comes_back(command, tmp_path):
  hub.to_folder(mlpvision.load(_TIMM / "mixer"), tmp_path / "folder", repository="me/mine")
  (tmp_path / "folder" / "private.txt").write_text("not of the model")
  with hub_server.serving() as (repositories, address):
    repositories["me/empty"] = {"README.md": b""}
    environment = dict(HF_ENDPOINT=address, HF_HOME=str(tmp_path / "home"), HF_TOKEN="hf_test")
    code, output = command("-c", _SCRIPT, str(tmp_path / "folder"), **environment)
  assert code == 0, output
  assert sorted(repositories["me/mine"]) == ["README.md", "config.json", "model.safetensors"]
  expected = [
    f"{address}/me/mine",
    "Trained(mixer_s32: 8,149 parameters, 5 classes, from hf://me/mine)",
    "Trained(mixer_s32: 8,149 parameters, 5 classes, from hf://me/mine@main)",
    "hf://me/mine@v2: has no such revision on the Hugging Face Hub",
    "hf://me/other: is not on the Hugging Face Hub, or not open to you If it is private or gated, log in first",
    "hf://me/empty: has no weights that can be read: it has neither model.safetensors nor pytorch_model.bin",
    "hf://mine: is no address of the Hugging Face Hub It has the form hf://OWNER/NAME",
    "Trained(mixer_s32: 8,149 parameters, 5 classes, from hf://me/mine)",
  ]
  lines = output.splitlines()
  assert len(lines) == len(expected), output
  assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), output


@pytest.fixture
def offline(monkeypatch, tmp_path):
  """The cache of huggingface_hub, without a network."""
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
  return tmp_path


def test_a_cache_is_enough(offline, here, tmp_path):
  repository = offline / "models--me--mine"
  (repository / "refs").mkdir(parents=True)
  (repository / "refs" / "main").write_text("1" * 40)
  shutil.copytree(_TIMM / "resmlp", repository / "snapshots" / ("1" * 40))
  Image.effect_noise((40, 30), 80).save(tmp_path / "noise.png")
  code, output = here("-m", "mlpvision.predict", "--weights=hf://me/mine", "--top=1", str(tmp_path / "noise.png"))
  assert code == 0, output
  with pytest.raises(
    UserError, match=r"hf://me/other: is not in the cache, and HF_HUB_OFFLINE is set.*\n.*hf download"
  ):
    mlpvision.load("hf://me/other")


def test_without_the_library(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(UserError, match=r"pip install 'mlpvision\[hub\]'"):
    mlpvision.load("hf://me/mine")
  with pytest.raises(UserError, match=r"pip install 'mlpvision\[hub\]'"):
    hub.push(".", "me/mine")


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--format=safetensors", "--push=me/mine"], "--push and --license are for --format=hub"),
    (["--format=hub", "--push=mine"], "--push=mine: must be OWNER/NAME"),
  ],
)
def test_wrong_flags(flags, message, here, tmp_path):
  code, output = here("-m", "mlpvision.export", f"--weights={_TIMM / 'mixer'}", f"--output={tmp_path / 'x'}", *flags)
  assert code == 2
  assert message in output
