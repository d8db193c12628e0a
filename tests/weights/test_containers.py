"""Weight files as the world writes them: prefixes, containers, averages, paths, and what cannot be read."""

import logging

import goldens
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
import torch_files

from mlpvision import trained, weights
from mlpvision.errors import UserError


@pytest.fixture(scope="module")
def params():
  return goldens.read("mixer_timm")[1]


def _equal(loaded, params):
  jax.tree.map(np.testing.assert_array_equal, loaded.params, goldens.ours(params))


PREFIXES = ["model.", "net.", "backbone.", "encoder.", "_orig_mod.", "module.", "module._orig_mod.", "model.module."]
PREFIXES += ["_orig_mod.model.backbone.", "student.", "my_net.", "learner.student.module."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_common_prefix(tmp_path, params, prefix, suffix, caplog):
  named = {prefix + name: array for name, array in params.items()}
  if suffix == ".pth":
    torch_files.save(tmp_path / "x.pth", named)
  else:
    save_file(named, tmp_path / "x.safetensors")
  _equal(weights.load(tmp_path / f"x{suffix}"), params)
  assert "left out" not in caplog.text


def test_a_prefix_with_other_arrays_beside_it(tmp_path, params, caplog):
  named = {f"model.{name}": array for name, array in params.items()}
  save_file(named | {"loss.weight": np.ones(3, np.float32)}, tmp_path / "x.safetensors")
  with caplog.at_level(logging.WARNING, logger="absl"):
    _equal(weights.load(tmp_path / "x.safetensors"), params)
  assert "1 arrays are not of the model and are left out:\n  loss.weight" in caplog.text


def test_a_prefix_says_nothing_about_the_model(tmp_path):
  save_file({f"model.layer{i}.conv.weight": np.ones((2, 2), np.float32) for i in range(9)}, tmp_path / "x.safetensors")
  with pytest.raises(weights.WeightsError, match=r"no known model(?s:.*)model\.layer0"):
    weights.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
  "keys",
  [(), ("model",), ("state_dict",), ("model_state_dict",), ("module",), ("state_dict", "model"), ("model", "module")],
)
def test_containers(tmp_path, params, keys, caplog):
  content = params
  for key in reversed(keys):
    content = {key: content, "epoch": 3}
  torch_files.write(tmp_path / "x.pth", content)
  loaded = weights.load(tmp_path / "x.pth")
  _equal(loaded, params)
  assert loaded.info.ema is None
  assert "EMA" not in caplog.text


AVERAGES = ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict", "ema_model"]


@pytest.mark.parametrize("key", AVERAGES)
@pytest.mark.parametrize("inside", [None, "module", "state_dict"])
def test_weights_and_their_average(tmp_path, params, key, inside, caplog):
  average = {name: array * 2 for name, array in params.items()}
  path = tmp_path / "x.pth.tar"
  content = average if inside is None else {inside: {f"module.{name}": array for name, array in average.items()}}
  torch_files.write(path, {"state_dict": params, key: content, "epoch": 1})
  with caplog.at_level(logging.WARNING, logger="absl"):
    loaded = weights.load(path)
  _equal(loaded, average)
  assert loaded.info.ema is True
  assert "weights and their average (EMA). Loaded: the average" in caplog.text
  _equal(weights.load(path, ema=True), average)
  plain = weights.load(path, ema=False)
  _equal(plain, params)
  assert plain.info.ema is False
  assert trained.open_source(path, ema=False).info.ema is False
  assert trained.open_source(path).info.ema is True


def test_without_an_average(tmp_path, params):
  torch_files.write(tmp_path / "x.pth", {"model": params})
  save_file(params, tmp_path / "x.safetensors")
  for path in (tmp_path / "x.pth", tmp_path / "x.safetensors"):
    _equal(weights.load(path, ema=False), params)
    with pytest.raises(weights.WeightsError, match="has no average of its weights"):
      weights.load(path, ema=True)
  torch_files.write(tmp_path / "x.pth", {"model_ema": params})
  _equal(weights.load(tmp_path / "x.pth"), params)
  with pytest.raises(weights.WeightsError, match="has no weights but their average"):
    weights.load(tmp_path / "x.pth", ema=False)


def test_tensors_beside_the_state_dict(tmp_path, params):
  torch_files.write(tmp_path / "x.pth", {"best": np.ones(1, np.float32), "state_dict": params})
  _equal(weights.load(tmp_path / "x.pth"), params)


@pytest.mark.parametrize("kind", ["pathlib", "pathlib._local"])
def test_arguments_with_paths(tmp_path, params, kind):
  path = torch_files.Object("argparse", "Namespace", (), {"output": torch_files.Object(kind, "PosixPath", ("/", "x"))})
  torch_files.write(tmp_path / "x.pth", {"args": path, "model": params})
  _equal(weights.load(tmp_path / "x.pth"), params)


def test_float8(tmp_path, params):
  name = "blocks.0.mlp_tokens.fc1.weight"
  shape = params[name].shape
  torch_files.write(tmp_path / "x.pth", params | {name: torch_files.Float8(shape)})
  with pytest.raises(weights.WeightsError, match=f"{name} is of type torch.float8_e4m3fn\n.*convert"):
    weights.load(tmp_path / "x.pth")


@pytest.mark.parametrize("top", [True, False])
def test_whole_models(tmp_path, top):
  model = torch_files.Object("timm.models.mlp_mixer", "MlpMixer", (), {"training": True})
  torch_files.write(tmp_path / "x.pth", model if top else {"model": model, "epoch": 3})
  with pytest.raises(
    weights.WeightsError, match=r"refers to timm\.models\.mlp_mixer\.MlpMixer(?s:.*)state_dict\(\)"
  ) as error:
    weights.load(tmp_path / "x.pth")
  assert ("whole pickled" in str(error.value)) == top
  assert "state_dict()" in str(error.value)


@pytest.mark.parametrize("count", [0, None])
def test_headless(tmp_path, params, count):
  save_file(params, tmp_path / "x.safetensors")
  loaded = weights.load(tmp_path / "x.safetensors", num_classes=count)
  assert (loaded.info.head, loaded.module.num_classes) == ("none", None)


@pytest.mark.parametrize("count", [-1, 2.0, True, False, "10", np.float32(3), [3], float("nan")])
def test_numbers_of_classes_that_are_none(tmp_path, params, count):
  save_file(params, tmp_path / "x.safetensors")
  with pytest.raises(weights.WeightsError, match="num_classes="):
    weights.load(tmp_path / "x.safetensors", num_classes=count)
  with pytest.raises(UserError, match="num_classes="):
    trained.open_source(tmp_path / "x.safetensors", num_classes=count)
