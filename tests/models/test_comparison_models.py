"""What every family that mlpvision compares against promises, on small models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from parity import relative_error, shapes
import pytest

from mlpvision import models

SMALL = {
  "ff_base": dict(num_blocks=2, hidden_dim=16, patch_size=8),
  "resmlp_s12": dict(num_blocks=2, hidden_dim=16, patch_size=8),
  "vit_b16": dict(num_blocks=2, hidden_dim=16, patch_size=8, num_heads=2),
  "swin_tiny": dict(depths=(1, 2), hidden_dim=8, num_heads=(1, 2), window_size=2),
}
IMAGES = np.random.default_rng(0).normal(size=(3, 24, 32, 3)).astype(np.float32)  # a rectangle suits every family
_KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default


def _create(name, **options):
  return models.create(name, **SMALL[name], **{"num_classes": 5, **options})


@functools.cache
def _params(name):
  """Far from the initial values, so that every parameter tells."""
  random = np.random.default_rng(1)

  def leaf(path, shape):
    return (path[-1].key == "scale") + random.normal(size=shape).astype(np.float32) * 0.2

  tree = shapes(_create(name), *IMAGES.shape[1:3])
  return jax.tree.map_with_path(leaf, tree, is_leaf=lambda x: isinstance(x, tuple))


@functools.cache
def _apply(name, *, train=False, method=None, **options):
  apply = jax.jit(functools.partial(_create(name, **options).apply, train=train, method=method))
  return apply({"params": _params(name)}, IMAGES, rngs={"dropout": _KEY} if train else None)


@pytest.mark.parametrize("name", SMALL)
def test_without_classes_gives_what_the_head_sees(name):
  head = _params(name)["head"]
  pooled = _apply(name, num_classes=None)
  assert pooled.shape == (3, 16)
  np.testing.assert_allclose(pooled @ head["kernel"] + head["bias"], _apply(name), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_features_are_maps_of_the_promised_strides(name):
  maps = _apply(name, method="features")
  assert isinstance(maps, tuple)
  assert [x.shape[:3] for x in maps] == [(3, 24 // stride, 32 // stride) for stride in _create(name).feature_strides]


@pytest.mark.parametrize("name", SMALL)
def test_dropout_acts_in_training_only(name):
  np.testing.assert_array_equal(_apply(name, dropout=0.5), _apply(name))
  assert relative_error(_apply(name, dropout=0.5, train=True), _apply(name)) > 0.01


@pytest.mark.parametrize("name", SMALL)
def test_drop_path_trains_and_remat_changes_nothing(name):
  def run(remat):
    model = _create(name, drop_path=0.2, remat=remat)

    def loss(params):
      logits = model.apply({"params": params}, IMAGES, train=True, rngs={"dropout": _KEY})
      return jnp.square(logits).sum(), logits

    return jax.jit(jax.grad(loss, has_aux=True))(_params(name))

  (grads, logits), (remat_grads, remat_logits) = run("none"), run("preactivations")
  assert relative_error(logits, _apply(name)) > 0.001
  assert relative_error(remat_logits, logits) < 1e-6
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))
  assert max(jax.tree.leaves(jax.tree.map(relative_error, remat_grads, grads))) < 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_computes_in_it_and_returns_float32(name):
  logits = _apply(name, dtype=jnp.bfloat16)
  assert logits.dtype == jnp.float32
  assert 0 < relative_error(logits, _apply(name)) < 0.05
  model, variables = _create(name, dtype=jnp.bfloat16), {"params": _params(name)}
  maps = jax.eval_shape(functools.partial(model.apply, method="features"), variables, IMAGES)
  assert all(x.dtype == jnp.bfloat16 for x in maps)
  params = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
