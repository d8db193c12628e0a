"""The products under a mask, as on TPU, equal those of single heads, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision.models import attention

_HEADS = 3


def _by_definition(x, y):
  heads = [slice(h * 4, h * 4 + 4) for h in range(_HEADS)]
  return jnp.stack([x[..., h] @ y[..., h].swapaxes(-1, -2) for h in heads], -3)


def _sums_by_definition(weights, x):
  return jnp.concatenate([weights[..., h, :, :] @ x[..., h * 4 : h * 4 + 4] for h in range(_HEADS)], -1)


def test_both_forms_equal_the_products_of_single_heads(monkeypatch):
  random = np.random.default_rng(0)
  x, y, g = random.standard_normal((3, 2, 5, 7, 12))
  weights, of_products = random.standard_normal((2, 2, 5, _HEADS, 7, 7))

  def run(products, sums):
    value, pull_back = jax.vjp(products, x, y)
    summed, pull_back_sums = jax.vjp(sums, weights, x)
    return value, *pull_back(of_products), summed, *pull_back_sums(g)

  def ours(form):
    monkeypatch.setattr(attention, "_lowered", lambda heads, first, x, **forms: forms[form](first, x))
    return run(
      lambda x, y: attention.head_products(x, y, _HEADS), lambda weights, x: attention.head_sums(weights, x, _HEADS)
    )

  with jax.enable_x64(True):  # so that the order of additions does not matter
    expected = run(_by_definition, _sums_by_definition)
    for form in ("by_head", "masked"):
      for result, right in zip(ours(form), expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
  ("platform", "heads", "tokens", "masked"),
  [("tpu", 3, 49, True), ("tpu", 12, 49, False), ("tpu", 3, 197, False), ("cpu", 3, 49, False)],
)
def test_few_heads_of_small_windows_are_masked_on_tpu_alone(platform, heads, tokens, masked):
  x = jax.ShapeDtypeStruct((2, tokens, heads * 32), jnp.bfloat16)

  def step(x):
    return jax.vjp(lambda x: attention.head_products(x, x, heads), x)[1](jnp.ones((2, heads, tokens, tokens), x.dtype))

  text = jax.jit(step).trace(x).lower(lowering_platforms=(platform,)).as_text()
  assert (f"tensor<2x{heads}x{tokens}x{heads * 32}xbf16>" in text) == masked
