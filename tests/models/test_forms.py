"""Products, GELU and norms with their own forms or gradients, compared with the plain ones."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models
from mlpvision.models import forms, layers


def _random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def _same(ours, plain, *arguments, tolerance=1e-5):
  """Both functions' values and gradients, compiled, agree."""
  for function in (lambda f: f, lambda f: jax.grad(lambda *a: jnp.sin(f(*a)).sum(), range(len(arguments)))):
    results = (jax.jit(function(f))(*arguments) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), *results)


def test_gelu_is_exact_and_so_is_its_gradient():
  x = jnp.concatenate([_random(50) * 3, jnp.asarray([0.0, -40.0, 40.0])])
  _same(forms.gelu, lambda x: jax.nn.gelu(x, approximate=False), x)


@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 4, 8)])
def test_dense_is_that_of_flax(shape):
  dense, plain = layers.Dense(6), nn.Dense(6)
  params = {"kernel": _random(8, 6), "bias": _random(6, seed=1)}
  assert jax.tree.map(jnp.shape, dense.init(jax.random.key(0), _random(*shape))["params"]) == jax.tree.map(
    jnp.shape, params
  )
  _same(*(lambda p, x, m=m: m.apply({"params": p}, x) for m in (dense, plain)), params, _random(*shape, seed=2))


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_products_of_a_map_are_by_tokens_on_cpu_only(platform):
  def gradient(x, kernel):
    return jax.grad(lambda x, kernel: jnp.sin(forms.product(x, kernel)).sum(), (0, 1))(x, kernel)

  arguments = jnp.zeros((2, 3, 4, 8)), jnp.zeros((8, 6))
  text = jax.jit(gradient).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
  products = [line for line in text.splitlines() if "dot_general" in line]
  assert len(products) == 3
  assert all(("tensor<24x" in line) == (platform == "cpu") for line in products)


def test_norms_are_those_of_flax():
  x = 3.0 + 0.5 * _random(3, 4, 5, 8)
  params = {"scale": _random(8), "bias": _random(8, seed=1)}
  for ours, plain in (
    (layers.LayerNorm(epsilon=1e-5), nn.LayerNorm(epsilon=1e-5)),
    (layers.GroupNorm1(), nn.GroupNorm(1, epsilon=1e-5)),
  ):
    _same(*(lambda p, x, m=m: m.apply({"params": p}, x) for m in (ours, plain)), params, x, tolerance=1e-4)


def test_a_large_mean_does_not_spoil_the_norm_of_a_map():
  x = _random(2, 8, 8, 16)
  model = layers.GroupNorm1()
  variables = model.init(jax.random.key(0), x)
  np.testing.assert_allclose(model.apply(variables, x + 1000.0), model.apply(variables, x), atol=1e-3)


def test_the_norm_of_a_bfloat16_map_is_as_good_as_its_values():
  """In value and gradient, at a mean of ten standard deviations, compared with the norm of these values in float32."""
  x = (10 + _random(2, 7, 7, 24)).astype(jnp.bfloat16)
  params = {"params": {"scale": 1 + 0.1 * _random(24, seed=1), "bias": _random(24, seed=2)}}
  towards = _random(2, 7, 7, 24, seed=3)

  def run(x):
    def value(x):
      return (layers.GroupNorm1(dtype=x.dtype).apply(params, x) * towards).sum()

    return layers.GroupNorm1(dtype=x.dtype).apply(params, x), jax.grad(value)(x)

  for ours, exact in zip(*(jax.jit(run)(x.astype(dtype)) for dtype in (jnp.bfloat16, jnp.float32)), strict=True):
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours, exact, rtol=0.01, atol=0.02)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of XLA on CPU")
def test_a_plain_jit_recomputes_nothing_that_the_compiler_options_would_keep():
  """With the mean before the mean of squares in `layer_norm`, it would read and write a tenth more bytes."""
  sizes = dict(patch_size=8, num_blocks=5, hidden_dim=16, tokens_mlp_dim=8, channels_mlp_dim=16)
  model = models.create("mixer_b16", num_classes=2, **sizes)
  images = jnp.zeros((2, 32, 32, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), images)
  lowered = jax.jit(jax.grad(lambda params: model.apply(params, images).sum())).lower(params)
  plain, kept = (lowered.compile(options).cost_analysis() for options in ({}, models.compiler_options()))
  assert plain["bytes accessed"] < 1.05 * kept["bytes accessed"]
  assert models.compiler_options("tpu") == {}
