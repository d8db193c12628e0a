"""ResMLP's scale at the end of a branch."""

import jax
import jax.numpy as jnp
import numpy as np

from mlpvision import models


def test_layer_scale_starts_at_the_variants_value():
  model = models.create("resmlp_s24", num_blocks=1, hidden_dim=8)

  def scales(key):
    block = model.init(key, jnp.zeros((1, 16, 16, 3)))["params"]["block_0"]
    return block["layer_scale1"], block["layer_scale2"]

  np.testing.assert_allclose(jax.jit(scales)(jax.random.key(0)), 1e-5)
