"""Learning rates of single parameters: frozen ones stay, early layers move less."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlpvision import models
from mlpvision.errors import UserError
from mlpvision.training import lr_multipliers

_SMALL = {
  "asmlp_tiny": dict(hidden_dim=8, depths=(1, 2)),
  "ff_base": dict(num_blocks=2, hidden_dim=16),
  "mixer_b16": dict(num_blocks=11, hidden_dim=16, tokens_mlp_dim=8, channels_mlp_dim=8),
}


def _params(name):
  model = models.create(name, num_classes=3, **_SMALL[name])
  return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]


@pytest.mark.parametrize(
  ("name", "layers"),
  [
    ("asmlp_tiny", {"stem": 0, "stem_norm": 0, "stage_0_block_0": 1, "merge_0": 2, "stage_1_block_0": 2,
                    "stage_1_block_1": 3, "norm": 4, "head": 4}),
    ("ff_base", {"stem": 0, "cls_token": 0, "pos_embedding": 0, "cls_pos_embedding": 0, "block_0": 1, "block_1": 2,
                 "norm": 3, "head": 3}),
    ("mixer_b16", {"stem": 0, "MixerBlock_9": 10, "MixerBlock_10": 11, "pre_head_layer_norm": 12, "head": 12}),
  ],
)  # fmt: skip
def test_every_layer_has_the_rate_of_its_depth(name, layers):
  found = lr_multipliers.factors(_params(name), layer_decay=0.5)
  top = max(layers.values())
  for module, layer in layers.items():
    assert set(jax.tree.leaves(found[module])) == {0.5 ** (top - layer)}, module


def test_the_first_pattern_decides():
  found = lr_multipliers.factors(_params("ff_base"), ((r"block_1/.*kernel$", 3.0), ("block", 0.0)), layer_decay=0.5)
  assert set(jax.tree.leaves(found["block_0"])) == {0.0}
  assert {0.0, 1.5} == set(jax.tree.leaves(found["block_1"]))
  assert set(jax.tree.leaves(found["head"])) == {1.0}


@pytest.mark.parametrize(
  ("pairs", "message"),
  [
    ((("[", 1.0),), "not a regular expression"),
    ((("blok", 0.0),), "in no parameter's path"),
    ((("head", -1.0),), "-1"),
  ],
)
def test_wrong_pairs_are_named(pairs, message):
  with pytest.raises(UserError, match=message):
    lr_multipliers.check(_params("ff_base"), pairs)


def test_frozen_parameters_do_not_move_and_count_in_no_norm():
  params = {"stem": jnp.full(3, 2.0), "block_0": jnp.full(3, 2.0), "head": jnp.full(3, 2.0)}
  grads = {"stem": jnp.full(3, 1e6), "block_0": jnp.full(3, 0.1), "head": jnp.full(3, 0.1)}
  plain = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5), optax.add_decayed_weights(-0.01))
  optimizer = lr_multipliers.scaled(plain, (("stem", 0.0),), layer_decay=0.5)
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  np.testing.assert_array_equal(updates["stem"], 0)
  np.testing.assert_allclose(updates["head"], -0.5 * 0.1 - 0.02, rtol=1e-6)  # not clipped: its norm is 0.24
  np.testing.assert_allclose(updates["block_0"], 0.5 * updates["head"], rtol=1e-6)


def test_without_pairs_the_optimizer_is_as_it_was():
  optimizer = optax.sgd(0.1)
  assert lr_multipliers.scaled(optimizer) is optimizer
