"""What `import mlpvision` gives."""

import dataclasses
import importlib.metadata
import pickle
import re
import subprocess
import sys
from typing import get_args

from flax import linen as nn
import jax
import memory
import numpy as np
from PIL import Image
import pytest

import mlpvision
from mlpvision import models, weights
from mlpvision.errors import UserError
from mlpvision.trained import Trained

_VIEW = weights.Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, crop_ratio=1.0, interpolation="bicubic", image_size=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A small AS-MLP from a file."""
  model = models.create("asmlp_tiny", num_classes=7, hidden_dim=8, depths=(1, 1))
  params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  path = tmp_path_factory.mktemp("weights") / "small.safetensors"
  weights.save(path, model, params, _VIEW)
  return mlpvision.load(path)


def test_what_is_loaded_reads_well(trained):
  """In a line and as a table; foreign names do no harm there."""
  assert re.fullmatch(r"Trained\(asmlp_tiny: [\d,]+ parameters, 7 classes, from \S+small.safetensors\)", repr(trained))
  named = dataclasses.replace(trained, class_names=("<b>", "\x1b[31m", *"cdefg"))
  html = named._repr_html_()
  assert "7 classes: &lt;b&gt;, \\x1b[31m, c, d, e, ..." in html
  assert "8 channels at stride 4; 16 channels at stride 8" in html
  assert "32 pixels, crop ratio 1, bicubic" in html
  loaded = weights.load(trained.info.path, num_classes=0)
  assert "no head" in repr(loaded)
  assert "Loaded" in repr(loaded)
  assert "no head" in loaded._repr_html_()
  assert len(repr(trained)) < 250


def test_unpacking_has_types(trained):
  """For type checkers, what is loaded is a tuple of three or two."""
  (of_trained,), (of_loaded,) = Trained.__orig_bases__, weights.Loaded.__orig_bases__
  assert get_args(of_trained)[0] is nn.Module
  assert get_args(of_loaded)[::2] == (nn.Module, weights.Info)
  again = pickle.loads(pickle.dumps(weights.load(trained.info.path)))
  module, params, info = again
  assert (module, info) == (trained.model, again.info)
  jax.tree.map(np.testing.assert_array_equal, params, trained.params)


def test_the_version_is_the_package_s():
  assert importlib.metadata.version("mlpvision") == mlpvision.__version__


def test_names():
  assert mlpvision.list_models() == list(models.MODELS)
  assert mlpvision.list_models("s2mlp_*") == ["s2mlp_wide", "s2mlp_deep"]
  assert "mixer_b16.goog_in1k" in mlpvision.list_weights("mixer*")


def test_preprocessing_is_what_the_weights_ask_for(trained):
  pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  np.testing.assert_allclose(trained.preprocess(pixels), (pixels / 255 - 0.5) / 0.25, rtol=1e-6, atol=1e-6)
  assert trained.preprocess(pixels[:20, :, 0]).shape == (32, 32, 3)


def test_predictions_of_all_kinds_of_pictures_agree(trained, tmp_path):
  image = Image.effect_noise((50, 40), 90).convert("RGB")
  path = tmp_path / "noise.png"
  image.save(path)
  model, params = trained
  logits = model.apply({"params": params}, trained.preprocess(path)[None])[0]
  expected = np.asarray(jax.nn.softmax(logits))
  (alone,) = trained.predict(path, top=3)
  assert [p.name for p in alone] == [str(i) for i in np.argsort(-expected)[:3]]
  np.testing.assert_allclose([p.probability for p in alone], np.sort(expected)[::-1][:3], rtol=1e-5)
  assert trained.predict([str(path), path.read_bytes(), image, np.asarray(image)], top=3) == [alone] * 4


def test_bad_pictures_are_named_together(trained, tmp_path):
  with pytest.raises(UserError, match=r"(?s)gone\.png.*as ndarray: an array of shape \[3, 3, 5, 2\]"):
    trained.predict([tmp_path / "gone.png", np.zeros((3, 3, 5, 2), np.uint8)])


def test_importing_is_light():
  """Neither TensorFlow nor, before it is needed, JAX; nor ever what only the Hub or a peer needs."""
  code = "import sys, mlpvision; mlpvision.__version__; sys.exit('jax' in sys.modules or 'tensorflow' in sys.modules)"
  subprocess.run([sys.executable, "-c", code], check=True)
  code = (
    "import sys, mlpvision; mlpvision.list_models(); mlpvision.list_weights();"
    " sys.exit(bool({'tensorflow', 'torch', 'huggingface_hub'} & sys.modules.keys()))"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_one_picture_is_in_memory_at_a_time(trained, tmp_path):
  picture = Image.new("RGB", (2500, 2000), "red")  # 20 MB
  paths = [tmp_path / f"{i}.jpg" for i in range(8)]
  for path in paths:
    picture.save(path)
  trained.predict(paths[0])
  with memory.limited(60):
    assert len(trained.predict(paths)) == len(paths)
