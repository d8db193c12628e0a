"""The convolution on TPU equals the shift and product on other platforms, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision.models import shift, shifted_product


def _value_and_gradients(function, x, kernel, g):
  value, pull_back = jax.vjp(function, x, kernel)
  return value, *pull_back(g)


# Five channels in groups of seven: fewer groups than offsets. 40 with 7: the last group is smaller.
@pytest.mark.parametrize(("channels", "size"), [(24, 5), (40, 7), (5, 7), (16, 3)])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("dilation", [1, 3])
def test_both_forms_equal_the_product_after_the_shift(channels, size, axis, dilation):
  random = np.random.default_rng(0)
  x, kernel = random.standard_normal((2, 6, 9, channels)), random.standard_normal((channels, 8))
  g = random.standard_normal((2, 6, 9, 8))

  def plain(x, kernel):
    return shift.axial_shift(x, size, axis, dilation=dilation) @ kernel

  def as_used(x, kernel):
    return shifted_product.shifted_product(x, kernel, size, axis, dilation=dilation)

  def convolution(x, kernel):
    return shifted_product._convolution(x, kernel, size, axis, dilation)

  def run(*arguments):
    return [_value_and_gradients(function, *arguments) for function in (plain, as_used, convolution)]

  with jax.enable_x64(True):  # so that the order of additions does not matter
    expected, *found = jax.jit(run)(x, kernel, g)
  for results in found:
    for result, right in zip(results, expected, strict=True):
      np.testing.assert_allclose(result, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
  ("platform", "channels", "options", "convolutions"),
  [
    ("tpu", 96, {}, 2),
    ("tpu", 768, {}, 0),
    ("tpu", 96, dict(padding="circular"), 0),
    ("tpu", 96, dict(few_images=True), 0),
    ("cpu", 96, {}, 0),
  ],
)
def test_narrow_maps_become_convolutions_on_tpu_alone(platform, channels, options, convolutions):
  x = jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.bfloat16)
  kernel = jax.ShapeDtypeStruct((channels, channels), jnp.bfloat16)

  def step(x, kernel):
    return _value_and_gradients(
      lambda *operands: shifted_product.shifted_product(*operands, 5, 1, **options), x, kernel, x
    )

  text = jax.jit(step).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
  assert text.count("stablehlo.convolution") == convolutions  # the value and the map's gradient
  assert text.count("stablehlo.dot_general") == 3 - convolutions
