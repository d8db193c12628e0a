"""gMLP's gate: what timm's values and weights depend on, how it starts, and the one image size."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models, weights
from mlpvision.models import gmlp, layers

_NORM = layers.LayerNorm


@pytest.mark.parametrize(("epsilon", "wrong"), [(1e-6, 1e-5), (1e-5, 1e-6)])
def test_both_epsilons_count(monkeypatch, epsilon, wrong):
  """The gate's norm has 1e-5, the others 1e-6."""
  goldens.loaded("gmlp_timm")

  def norm(**options):
    return _NORM(**options | ({"epsilon": wrong} if options["epsilon"] == epsilon else {}))

  monkeypatch.setattr(layers, "LayerNorm", norm)
  assert goldens.error_of_logits("gmlp_timm") > 2e-5


def test_the_gate_multiplies_the_first_half_by_the_mixed_second(monkeypatch):
  _, state, arrays = goldens.read("gmlp_timm")
  assert state["blocks.0.mlp_channels.gate.proj.weight"].shape == (24, 24)  # of patches, for all channels
  plain = gmlp.SpatialGating.__call__

  def exchanged(self, x):
    return plain(self, jnp.roll(x, x.shape[-1] // 2, -1))

  monkeypatch.setattr(gmlp.SpatialGating, "__call__", exchanged)
  assert goldens.error_of_logits("gmlp_timm") > 0.1
  assert arrays["out/gate0"].shape[-1] * 2 == len(state["blocks.0.mlp_channels.fc1.weight"])


def test_a_gate_starts_as_its_first_half():
  """W is near zero and b is one."""
  gate = gmlp.SpatialGating(jnp.float32)
  x = np.random.default_rng(0).standard_normal((2, 6, 8), np.float32)
  found, variables = gate.init_with_output(jax.random.key(0), x)
  np.testing.assert_allclose(found, x[..., :4], atol=1e-4)
  assert 0 < np.abs(variables["params"]["proj"]["kernel"]).max() < 1e-5


def test_drop_path_is_the_same_in_all_blocks():
  """The only block of a model has it, where a rate that increases with the depth is still 0."""
  model = models.create("gmlp_s16", num_blocks=1, hidden_dim=8)
  images = jnp.zeros((1, 16, 16, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), images)
  for rate in (0.0, 0.05):
    apply = functools.partial(model.clone(drop_path=rate).apply, train=True, rngs={"dropout": jax.random.key(0)})
    assert ("random_bits" in str(jax.make_jaxpr(apply)(params, images))) == (rate > 0)


def test_another_image_size_is_refused(tmp_path):
  path = goldens.write(tmp_path, "gmlp_timm")
  with pytest.raises(ValueError, match="parameters for 24 patches cannot be adapted to 8x8"):
    weights.load(path, image_size=64)
  module, params, _ = weights.load(path, image_size=(32, 48))
  with pytest.raises(ValueError, match="for 24 patches of 8x8 pixels, the images have 64"):
    jax.eval_shape(module.apply, {"params": params}, jnp.zeros((1, 64, 64, 3)))


def test_an_odd_width_has_no_halves():
  with pytest.raises(ValueError, match="needs two halves"):
    goldens.shapes(models.create("gmlp_s16", num_blocks=1, hidden_dim=5, mlp_ratio=1.0), 16)
