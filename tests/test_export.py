"""Exported models, read back by what reads them, give the same logits for any batch size."""

import dataclasses
import json
import sys

import families
import jax
import jax.export
import numpy as np
import pytest

import mlpvision
from mlpvision import augment, models, weights
from mlpvision.export import formats

# One variant of a family of each kind: of maps in stages, with token mixing, with attention in windows.
_SMALL = {
  "asmlp_tiny": dict(hidden_dim=8, depths=(1, 1)),
  "mixer_b16": dict(num_blocks=1, hidden_dim=16, patch_size=8, tokens_mlp_dim=8, channels_mlp_dim=16),
  "swin_tiny": dict(hidden_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=2),
}
_OF_FAMILIES = {name: dict(options) for row in families.FAMILIES.values() for name, options in row.small.items()}
_OF_FAMILIES["vip_s7"] |= dict(segments=4)  # whose images have this many patches
_VIEW = weights.Preprocessing(
  mean=(0.4, 0.5, 0.6), std=(0.25,) * 3, crop_ratio=0.9, interpolation="bicubic", image_size=32
)
_IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def _trained(name, folder, options=None, view=_VIEW):
  """A model with random parameters, from a file; drawn by NumPy, because compiling `init` takes longer."""
  model, rng = models.create(name, num_classes=6, **(options or _SMALL[name])), np.random.default_rng(0)
  image = np.zeros((1, view.image_size, view.image_size, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  params = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes)
  weights.save(folder / "weights.safetensors", model, params, view)
  return mlpvision.load(folder / "weights.safetensors")


def _logits(trained, images=_IMAGES):
  images = augment.normalize(images, _VIEW.mean, _VIEW.std)
  return np.asarray(jax.jit(trained.model.apply)({"params": trained.params}, images))


@pytest.mark.parametrize("name", _SMALL)
def test_stablehlo(name, tmp_path):
  trained = _trained(name, tmp_path)
  formats.to_stablehlo(trained, tmp_path / "model")
  call = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes())).call
  expected = _logits(trained)
  for count in (1, 3) if name == "mixer_b16" else (3,):
    np.testing.assert_allclose(call(_IMAGES[:count]), expected[:count], rtol=1e-5, atol=1e-6)
  assert json.loads((tmp_path / "model.json").read_text())["class_names"] == list("012345")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in ("asmlp_tiny", "mixer_b16", "s2mlp_wide") else pytest.mark.slow)
    for name in _OF_FAMILIES
  ],
)
def test_onnx(name, tmp_path):
  """In onnxruntime, for batches of two sizes, with what a program must know in the one file."""
  pytest.importorskip("jax2onnx")
  onnxruntime = pytest.importorskip("onnxruntime")
  trained = _trained(name, tmp_path, _OF_FAMILIES[name])
  formats.FORMATS["onnx"](trained, tmp_path / "model.onnx")
  session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
  expected = _logits(trained)
  for count in (3, 1):
    (logits,) = session.run(["logits"], {"images": _IMAGES[:count]})
    np.testing.assert_allclose(logits, expected[:count], rtol=0, atol=1e-5 * np.abs(expected).max())
  noted = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
  assert noted == json.loads(json.dumps(dataclasses.asdict(_VIEW) | {"class_names": list("012345"), "loss": "softmax"}))


@pytest.mark.slow
def test_onnx_normalizes_whole_maps(tmp_path):
  """onnxruntime would add the 301,056 terms of a group norm one after another, and lose two digits."""
  onnxruntime = pytest.importorskip("onnxruntime")
  view = dataclasses.replace(_VIEW, image_size=224)
  trained = _trained("asmlp_tiny", tmp_path, dict(depths=(1, 1)), view)
  formats.FORMATS["onnx"](trained, tmp_path / "model.onnx")
  images = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
  (logits,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["logits"], {"images": images})
  expected = _logits(trained, images)
  np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_onnx_without_its_library(here, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "jax2onnx", None)
  code, output = here(
    "-m", "mlpvision.export", "--weights=none", "--format=onnx", f"--output={tmp_path / 'model.onnx'}"
  )
  assert code == 2
  assert "pip install 'mlpvision[onnx]'" in output


def test_the_command_writes_weights_that_load_again(here, tmp_path):
  trained = _trained("asmlp_tiny", tmp_path)
  flags = (
    f"--weights={tmp_path / 'weights.safetensors'}",
    "--format=safetensors",
    f"--output={tmp_path / 'new.safetensors'}",
  )
  code, output = here("-m", "mlpvision.export", *flags)
  assert code == 0, output
  again = mlpvision.load(tmp_path / "new.safetensors")
  jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)
  assert again.model == trained.model
  assert (again.preprocessing, again.class_names) == (trained.preprocessing, trained.class_names)
