"""Adapting weights to another image size."""

import goldens
import jax
import numpy as np
import pytest

from mlpvision import weights
from mlpvision.models import mixer
from mlpvision.weights import resize


@pytest.mark.parametrize(("rows", "columns", "factor"), [(4, 4, 2), (2, 8, 2), (8, 2, 3)])
def test_mixer_treats_each_part_of_the_map_as_before(tmp_path, rows, columns, factor):
  """The paper's initialization: at K times the resolution, K x K images side by side do not affect each other."""
  module, params, _ = goldens.loaded("mixer_npz")
  parts = np.random.default_rng(0).normal(size=(factor, factor, rows * 8, columns * 8, 3)).astype(np.float32)
  image = parts.swapaxes(1, 2).reshape(1, factor * rows * 8, factor * columns * 8, 3)
  large, grown, info = weights.load(goldens.write(tmp_path, "mixer_npz"), image_size=image.shape[1:3])
  assert large.tokens_mlp_dim == factor**2 * module.tokens_mlp_dim
  assert info.overrides["tokens_mlp_dim"] == large.tokens_mlp_dim

  means, (expected,) = goldens.logits_and_maps(module, params, parts.reshape(-1, rows * 8, columns * 8, 3))
  logits, (actual,) = goldens.logits_and_maps(large, grown, image)
  actual = actual.reshape(factor, rows, factor, columns, -1).swapaxes(1, 2).reshape(expected.shape)
  assert goldens.relative_error(actual, expected) < 1e-6
  assert goldens.relative_error(logits, means.mean(0, keepdims=True)) < 1e-5


def test_token_mixing_alone_is_the_old_one_in_each_part():
  module, params, _ = goldens.loaded("mixer_npz")
  large, grown = resize.mixer_tokens(module, params, 2)
  tokens = np.random.default_rng(0).normal(size=(1, 48, 8, 8)).astype(np.float32)

  def mix(tree, x):
    mlp = mixer.layers.Mlp(tree["Dense_0"]["kernel"].shape[1], approximate=True)
    return np.asarray(goldens.apply(mlp, tree, x))

  new = mix(grown["MixerBlock_0"]["token_mixing"], tokens.reshape(1, 48, 64)).reshape(1, 48, 8, 8)
  for y in (0, 4):
    for x in (0, 4):
      part = tokens[:, :, y : y + 4, x : x + 4].reshape(1, 48, 16)
      old = mix(params["MixerBlock_0"]["token_mixing"], part).reshape(1, 48, 4, 4)
      np.testing.assert_allclose(new[:, :, y : y + 4, x : x + 4], old, rtol=1e-5, atol=1e-6)
  assert large.tokens_mlp_dim == 96


def test_mixer_refuses_other_factors(tmp_path):
  path = goldens.write(tmp_path, "mixer_npz")
  for size in (48, 40, 16, (64, 32)):
    with pytest.raises(ValueError, match="cannot be adapted to"):
      weights.load(path, image_size=size)
  with pytest.raises(ValueError, match="cannot take 33x33 images"):
    weights.load(path, image_size=33)
  module, params, _ = weights.load(path, image_size=32)
  assert module.tokens_mlp_dim == 24
  with pytest.raises(ValueError, match="grid of 3x4 .* 16 patches"):
    resize.mixer_tokens(module, params, 2, (3, 4))


def test_a_larger_mixer_with_a_new_head_can_be_saved(tmp_path):
  module, params, info = weights.load(goldens.write(tmp_path, "mixer_npz"), image_size=64, num_classes=3)
  assert info.head == "new"
  weights.save(tmp_path / "large.npz", module, params)
  again, loaded, _ = weights.load(tmp_path / "large.npz")
  assert again == module
  jax.tree.map(np.testing.assert_array_equal, params, loaded)


def test_bicubic_is_torchs():
  with np.load(goldens.DATA / "torch" / "bicubic.npz") as file:
    cases = [key.removeprefix("in/") for key in file.files if key.startswith("in/")]
    assert len(cases) == 6
    for case in cases:
      expected = file[f"out/{case}"]
      actual = resize._resample(file[f"in/{case}"], expected.shape[:2], case.endswith("antialias"))
      np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)


def test_vit_positions(tmp_path):
  path = goldens.write(tmp_path, "vit_timm")
  _, params, _ = goldens.loaded("vit_timm")
  module, grown, _ = weights.load(path, num_heads=4, image_size=(48, 40))
  assert jax.eval_shape(module.apply, {"params": grown}, np.zeros((1, 48, 40, 3), np.float32)).shape == (1, 10)
  old, new = params["pos_embedding"], grown["pos_embedding"]
  np.testing.assert_array_equal(new[:, 0], old[:, 0])
  expected = resize._resample(old[0, 1:].reshape(4, 4, 48), (6, 5), True)
  np.testing.assert_array_equal(new[0, 1:].reshape(6, 5, 48), expected)
  _, same, _ = weights.load(path, num_heads=4, image_size=32)
  np.testing.assert_array_equal(same["pos_embedding"], old)


def test_swin_windows(tmp_path):
  path = goldens.write(tmp_path, "swin_timm")
  _, params, _ = goldens.loaded("swin_timm")
  module, grown, info = weights.load(path, window_size=6)
  assert module.window_size == info.overrides["window_size"] == 6
  for block in ("stage_0_block_0", "stage_1_block_1"):
    old, new = params[block]["relative_position_bias"], grown[block]["relative_position_bias"]
    np.testing.assert_array_equal(new, resize._resample(old, (11, 11), False))
    np.testing.assert_allclose(new[5, 5], old[3, 3], rtol=1e-6)  # the middle stays the middle
  assert jax.eval_shape(module.apply, {"params": grown}, np.zeros((1, 96, 96, 3), np.float32)).shape == (1, 10)


def test_families_of_one_or_any_size(tmp_path):
  for name in ("ff", "resmlp_timm"):
    path = goldens.write(tmp_path, name)
    assert weights.load(path, image_size=32).params
    with pytest.raises(ValueError, match="for (16|4x4) patches cannot be adapted to 8x8"):
      weights.load(path, image_size=64)
  path = goldens.write(tmp_path, "asmlp")
  plain, same = goldens.loaded("asmlp"), weights.load(path, image_size=96)
  jax.tree.map(np.testing.assert_array_equal, plain.params, same.params)
  with pytest.raises(ValueError, match="cannot take 48x48"):
    weights.load(path, image_size=48)
  swin = goldens.write(tmp_path, "swin_timm")
  plain, same = goldens.loaded("swin_timm"), weights.load(swin, image_size=(36, 44))  # odd maps are padded
  jax.tree.map(np.testing.assert_array_equal, plain.params, same.params)
  for height, width in ((36, 30), (30, 36)):
    with pytest.raises(ValueError, match=f"cannot take {height}x{width}"):
      weights.load(swin, image_size=(height, width))
  with pytest.raises(ValueError, match="has no windows"):
    weights.load(path, window_size=7)
