"""Weight files in the commands: evaluated and predicted with the preprocessing that they carry."""

import json

import jax
import numpy as np
from PIL import Image
import pytest

from mlpvision import models, trained as trained_lib, weights
from mlpvision.errors import UserError

_VIEW = weights.Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, crop_ratio=1.0, interpolation="bilinear", image_size=28)


@pytest.fixture
def weight_file(tmp_path):
  """A small S2-MLP for the digits, as a file that says what images it expects."""
  model = models.create("s2mlp_wide", num_classes=10, num_blocks=1, hidden_dim=16, patch_size=4)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32))["params"]
  random = np.random.default_rng(0)
  params = jax.tree.map(lambda x: random.standard_normal(x.shape, np.float32), shapes)
  path = tmp_path / "digits.safetensors"
  weights.save(path, model, params, _VIEW)
  return path


def test_preprocessing_travels_with_the_file(weight_file):
  trained = trained_lib.load(str(weight_file))
  assert trained.preprocessing == _VIEW
  assert trained.class_names == tuple("0123456789")


def test_commands_take_weight_files(here, weight_file, tmp_path):
  flags = ("--config=configs/quickstart.py", "--config.data.eval_split=test[:50]", "--json")
  code, output = here("-m", "mlpvision.evaluate", f"--weights={weight_file}", *flags)
  assert code == 0, output
  (found,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
  assert found["images"] == 50
  assert 0 <= found["top1"] <= found["top5"] <= 1
  code, output = here("-m", "mlpvision.evaluate", f"--weights={weight_file}")
  assert code == 2
  assert "a weight file needs --config" in output
  picture = tmp_path / "digit.png"
  Image.effect_noise((40, 30), 80).save(picture)
  code, output = here("-m", "mlpvision.predict", f"--weights={weight_file}", str(picture))
  assert code == 0, output
  assert len(output.splitlines()) == 6


def test_commands_are_told_what_a_silent_file_expects(here, weight_file, tmp_path):
  loaded, path = weights.load(weight_file), tmp_path / "silent.safetensors"
  weights.save(path, loaded.module, loaded.params)
  with pytest.raises(UserError, match=r"does not specify its preprocessing.*\n  --preprocessing=mixer_b16.goog_in1k"):
    trained_lib.load(str(path))
  flags = (f"--weights={path}", "--config=configs/quickstart.py", "--config.data.eval_split=test[:50]", "--json")
  code, output = here("-m", "mlpvision.evaluate", *flags)
  assert code == 2
  assert "--preprocessing=" in output
  more = ("--shots=1", "--config.data.train_split=train[:50]", "--preprocessing=mixer_b16.goog_in1k")
  code, output = here("-m", "mlpvision.fewshot", *flags, *more)
  assert code == 0, output
