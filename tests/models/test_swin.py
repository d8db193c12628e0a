"""Swin against timm's numbers, with whole, padded and shrunk windows, and its sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from parity import Golden, count, ours, relative_error, shapes
import pytest

from mlpvision.models import swin

# timm's numbers; AS-MLP's paper prints 11.2M for its mobile Swin.
SIZES = {
  "swin_tiny": 28_288_354,
  "swin_small": 49_606_258,
  "swin_base": 87_768_224,
  "swin_mobile": 9_599_940,
  "swin_tiny_384": 28_338_034,
  "swin_small_384": 49_707_778,
  "swin_base_384": 87_903_584,
}


def _model(golden):
  meta = golden.meta
  sizes = dict(depths=tuple(meta["depths"]), num_heads=tuple(meta["num_heads"]), window_size=meta["window_size"])
  return swin.Swin(num_classes=meta["num_classes"], hidden_dim=meta["embed_dim"], **sizes)


@pytest.fixture(scope="module")
def golden():
  golden = Golden("swin_timm")
  return golden, _model(golden), ours(golden.params)


def test_logits_equal_timms(golden):
  golden, model, params = golden
  with jax.default_matmul_precision("highest"):
    logits = jax.jit(model.apply)({"params": params}, golden.images)
  assert relative_error(logits, golden.out["logits"]) < 1e-5


def test_maps_that_windows_do_not_divide():
  """Maps of 18x11, 9x6 and 5x3 under windows of 4x4: padded, and in the last stage shrunk along one axis."""
  golden = Golden("swin_timm_odd")
  state = dict(golden.params)
  for block in range(2):  # timm's table for 4x3 windows, into the middle of one for 4x4
    name = f"layers.2.blocks.{block}.attn.relative_position_bias_table"
    state[name] = np.pad(state[name].reshape(7, 5, 4), ((0, 0), (1, 1), (0, 0))).reshape(49, 4)
  model, params = _model(golden), ours(state)
  assert shapes(model, *golden.meta["image_size"]) == jax.tree.map(lambda x: x.shape, params)
  with jax.default_matmul_precision("highest"):
    logits = jax.jit(model.apply)({"params": params}, golden.images)
    maps = jax.jit(functools.partial(model.apply, method="features"))({"params": params}, golden.images)
  assert relative_error(logits, golden.out["logits"]) < 1e-5
  for stage, features in enumerate(maps):
    assert features.shape == golden.out[f"stage{stage}"].shape
    assert relative_error(features, golden.out[f"stage{stage}"]) < 1e-5


def test_parameters_are_timms(golden):
  golden, model, params = golden
  assert shapes(model, *golden.meta["image_size"]) == jax.tree.map(lambda x: x.shape, params)


def test_names_of_the_original_repository(golden):
  golden, _, params = golden
  names = {"layers.1.downsample": "layers.0.downsample", "head.fc": "head"}
  state = {"layers.0.blocks.1.attn_mask": np.zeros(1), "layers.0.blocks.0.attn.relative_position_index": np.zeros(1)}
  for name, value in golden.params.items():
    for timm, original in names.items():
      name = name.replace(timm, original)
    state[name] = value
  jax.tree.map(np.testing.assert_array_equal, ours(state), params)


def test_all_variants_are_counted():
  assert SIZES.keys() == swin.VARIANTS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_parameter_count(name):
  assert count(name, 384 if name.endswith("_384") else 224) == SIZES[name]


def test_parameters_do_not_depend_on_the_image_size(golden):
  _, model, params = golden
  assert shapes(model, 64) == shapes(model, 8, 12)
  logits = jax.eval_shape(model.apply, {"params": params}, jnp.zeros((1, 8, 12, 3)))
  assert logits.shape == (1, 10)


def test_images_that_patches_do_not_divide_are_refused(golden):
  _, model, params = golden
  with pytest.raises(ValueError, match="images of 30x64 cannot be cut into patches of 4x4"):
    model.apply({"params": params}, jnp.zeros((1, 30, 64, 3)))


def test_heads_must_be_given_for_every_stage():
  with pytest.raises(ValueError, match="one entry per stage"):
    shapes(swin.Swin(depths=(2, 2)), 64)
