"""The mean of checkpoints: as NumPy computes it, read back as weights, and refused where it has no meaning."""

import jax
import numpy as np
import pytest

import mlpvision
from mlpvision import config as config_lib, models, weights
from mlpvision.average import mean
from mlpvision.checkpoints import Checkpoints
from mlpvision.errors import UserError
from mlpvision.training.step import TrainState

_VIEW = weights.Preprocessing(
  mean=(0.4, 0.5, 0.6), std=(0.25,) * 3, crop_ratio=0.9, interpolation="bicubic", image_size=32
)


def _write(path, seed=0, name="mixer_b16", view=_VIEW, class_names="abcdef", **options):
  """A weight file with random parameters, which it returns."""
  sizes = dict(num_blocks=1, hidden_dim=16, patch_size=8, tokens_mlp_dim=8, channels_mlp_dim=16)
  if name != "mixer_b16":
    sizes = dict(num_blocks=1, hidden_dim=16, patch_size=8)
  model = models.create(name, num_classes=len(class_names), **sizes | options)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  params = _draw(shapes, seed)
  weights.save(path, model, params, view, list(class_names))
  return params


def _draw(shapes, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes)


def _check_mean(found, trees):
  expected = jax.tree.map(lambda *leaves: np.mean(np.stack(leaves).astype(np.float64), 0), *trees)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), found, expected)


def test_the_command_writes_the_mean_of_weight_files(here, tmp_path):
  files = [tmp_path / f"{i}.safetensors" for i in range(3)]
  trees = [_write(file, seed) for seed, file in enumerate(files)]
  output = tmp_path / "mean.safetensors"
  code, said = here("-m", "mlpvision.average", f"--weights={','.join(map(str, files))}", f"--output={output}")
  assert (code, said) == (0, f"wrote {output}, the mean of 3 checkpoints\n")
  elsewhere = f"--output={tmp_path / 'missing' / 'mean.safetensors'}"
  code, said = here("-m", "mlpvision.average", f"--weights={files[0]},{files[1]}", elsewhere)
  assert code == 2
  assert f"error: {elsewhere} cannot be written: No such file" in said
  found, one = mlpvision.load(output), mlpvision.load(files[0])
  _check_mean(found.params, trees)
  assert (found.model, found.preprocessing, found.class_names) == (one.model, one.preprocessing, one.class_names)


def test_checkpoints_of_a_run(small_config, tmp_path):
  """Parameters or EMAs, whatever the checkpoints' order; evaluation and prediction take the file."""
  model = models.create(small_config.model.name, num_classes=10, **_options(small_config))
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32))["params"]
  checkpoints, trees = Checkpoints(tmp_path / "run", keep=3), {}
  for step in (10, 20):
    trees[step] = params, ema = _draw(shapes, step), _draw(shapes, step + 1)
    meta = {"config": config_lib.to_json(small_config), "class_names": list("0123456789")}
    checkpoints.save(step, TrainState(np.int32(step), *jax.device_put((params, ema)), ()), meta)
  checkpoints.close()
  sources = [tmp_path / "run" / "checkpoints" / str(step) for step in (10, 20)]
  for i, ema in enumerate((None, True)):
    found = mean.average(sources, ema=ema)
    _check_mean(found.params, [trees[10][i], trees[20][i]])
  again = mean.average(sources[::-1], ema=True)
  jax.tree.map(np.testing.assert_array_equal, again.params, found.params)
  ((prediction, *_),) = found.predict([np.zeros((28, 28), np.uint8)])
  assert prediction.name in "0123456789"


def _options(config):
  return {key: value for key, value in config.model.items() if key not in ("name", "remat")}


@pytest.mark.parametrize(
  ("other", "message"),
  [
    (dict(name="s2mlp_wide"), "its model is S2MLP, not MlpMixer"),
    (dict(channels_mlp_dim=24), "channels_mlp_dim is 24, not 16"),
    (dict(class_names="abcde"), "it has 5 classes, not 6"),
    (dict(class_names="abcdeg"), "class 'g' instead of 'f'"),
    (
      dict(view=weights.Preprocessing(**{**vars(_VIEW), "crop_ratio": 0.8})),
      "preprocessing: crop_ratio is 0.8, not 0.9",
    ),
  ],
)
def test_what_has_no_mean_is_refused(tmp_path, other, message):
  _write(tmp_path / "one.safetensors")
  _write(tmp_path / "other.safetensors", **other)
  with pytest.raises(UserError, match=f"other.safetensors cannot be averaged with .*one.safetensors: .*{message}"):
    mean.average([tmp_path / "one.safetensors", tmp_path / "other.safetensors"])


def test_fewer_than_two_or_one_twice(tmp_path):
  one = tmp_path / "one.safetensors"
  _write(one)
  with pytest.raises(UserError, match="two checkpoints or more"):
    mean.average([one])
  with pytest.raises(UserError, match="is given twice"):
    mean.average([one, one])
