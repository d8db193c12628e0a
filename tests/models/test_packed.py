"""AS-MLP's block on packed maps equals the block on maps, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision.models import asmlp, packed, packed_block, shift

_OPTIONS = dict(mlp_ratio=2.0, shift_size=5, padding="zero", dilation=1, connection="parallel", drop_path=0.5)


def test_pixels_fill_registers():
  assert [packed.pixels(56, channels) for channels in (64, 96, 128, 192, 20)] == [2, 4, 1, 1, 1]
  assert packed.pixels(7, 96) == 1


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(("size", "dilation"), [(3, 1), (5, 1), (7, 2)])
def test_shifted_product(axis, size, dilation):
  x = jax.random.normal(jax.random.key(0), (2, 5, 8, 6))
  kernel = jax.random.normal(jax.random.key(1), (6, 3))
  found = packed.unpack(packed.shifted_product(packed.pack(x, 4), kernel, 4, size, axis, dilation), 4)
  np.testing.assert_allclose(found, shift.axial_shift(x, size, axis, dilation=dilation) @ kernel, atol=1e-5)


@pytest.mark.parametrize("changed", [{}, dict(connection="serial", shift_size=3), dict(dilation=2)])
@pytest.mark.parametrize("in_canvas", [False, True])
def test_a_block(changed, in_canvas):
  block = asmlp.ASBlock(**_OPTIONS | changed, dropout=0.0, dtype=jnp.float32)
  keys = jax.random.split(jax.random.key(0), 4)
  x, cotangent = jax.random.normal(keys[0], (2, 2, 5, 8, 64))
  cells = jnp.array([[5, 8], [4, 5]]) if in_canvas else None
  params = block.init(keys[1], x, False)["params"]
  leaves, tree = jax.tree.flatten(params)
  noise = jax.random.split(keys[2], len(leaves))
  params = tree.unflatten([p + jax.random.normal(key, p.shape) / 4 for p, key in zip(leaves, noise, strict=True)])
  valid = jnp.ones((2, 5, 8, 1), bool) if cells is None else asmlp.canvas.mask(x.shape, cells)
  assert packed_block.applies(block, x, True)

  def plain(params, x):
    return jnp.where(valid, block.apply({"params": params}, x, True, cells, rngs={"dropout": jax.random.key(3)}), 0)

  def form(params, x):
    with packed.traced_for("tpu"):
      return plain(params, x)

  expected, expected_back = jax.vjp(plain, params, x)
  found, found_back = jax.vjp(form, params, x)
  np.testing.assert_allclose(found, expected, atol=2e-5)
  for a, b in zip(*map(jax.tree.leaves, (found_back(cotangent), expected_back(cotangent))), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()))
