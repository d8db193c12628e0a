"""What ResMLP has of its own: the scale at the end of a branch."""

import jax
import jax.numpy as jnp
import numpy as np

from mlpvision import models


def test_layer_scale_starts_at_the_variants_value():
  model = models.create("resmlp_s24", num_blocks=1, hidden_dim=8)
  block = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]["block_0"]
  np.testing.assert_allclose(block["layer_scale1"], 1e-5)
  np.testing.assert_allclose(block["layer_scale2"], 1e-5)
