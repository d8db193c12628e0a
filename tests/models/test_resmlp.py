"""ResMLP against the original implementation's numbers, and its sizes."""

import jax
import jax.numpy as jnp
import numpy as np
from parity import Golden, count, ours, relative_error, shapes
import pytest

from mlpvision import models
from mlpvision.models import resmlp

# Those of the original implementation, but for B24/16, which it does not have: independent arithmetic.
SIZES = {
  "resmlp_s12": 15_350_872,
  "resmlp_s24": 30_020_680,
  "resmlp_s36": 44_690_488,
  "resmlp_b24_16": 115_736_776,
  "resmlp_b24_8": 129_138_280,
}


@pytest.fixture(scope="module")
def golden():
  golden = Golden("resmlp_timm")
  meta = golden.meta
  sizes = {name: meta[name] for name in ("patch_size", "num_blocks", "mlp_ratio", "num_classes")}
  return golden, resmlp.ResMLP(hidden_dim=meta["embed_dim"], **sizes), ours(golden.params)


def test_features_and_logits_equal_the_originals(golden):
  golden, model, params = golden
  with jax.default_matmul_precision("highest"):
    logits = jax.jit(model.apply)({"params": params}, golden.images)
    (features,) = model.apply({"params": params}, golden.images, method="features")
  assert features.shape == (2, 4, 4, 48)
  assert relative_error(logits, golden.out["logits"]) < 1e-5
  assert relative_error(features.reshape(2, 16, 48), golden.out["features"]) < 1e-5


def test_parameters_are_the_originals(golden):
  golden, model, params = golden
  assert shapes(model, *golden.meta["image_size"]) == jax.tree.map(lambda x: x.shape, params)


def test_names_of_the_deit_repository(golden):
  golden, _, params = golden
  names = {"stem.": "patch_embed.", "linear_tokens.": "attn.", "mlp_channels.": "mlp.", ".ls": ".gamma_"}
  state = {}
  for name, value in golden.params.items():
    for timm, deit in names.items():
      name = name.replace(timm, deit)
    state[name] = value.reshape(-1) if name.endswith(("alpha", "beta")) else value
  jax.tree.map(np.testing.assert_array_equal, ours(state), params)


def test_all_variants_are_counted():
  assert SIZES.keys() == resmlp.VARIANTS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_parameter_count(name):
  assert count(name, 224) == SIZES[name]


def test_layer_scale_starts_at_the_variants_value():
  model = models.create("resmlp_s24", num_blocks=1, hidden_dim=8)
  block = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]["block_0"]
  np.testing.assert_allclose(block["layer_scale1"], 1e-5)
  np.testing.assert_allclose(block["layer_scale2"], 1e-5)


def test_other_number_of_patches_is_refused(golden):
  golden, model, params = golden
  with pytest.raises(ValueError, match="for 16 patches of 8x8 pixels, the images have 25"):
    model.apply({"params": params}, jnp.zeros((1, 40, 40, 3)))
