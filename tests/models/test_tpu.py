"""The TPU compiler's estimates for one block of three families: v5e, bfloat16, forward and gradient; needs no TPU."""

import re

import jax
import jax.numpy as jnp
import pytest

from mlpvision.models import asmlp, layers, mixer, remat, s2mlp

pytestmark = pytest.mark.slow

_RUN = dict(dropout=0.0, dtype=jnp.bfloat16)
_S2 = dict(mlp_ratio=4.0, border="keep", norm="layer", norm_position="post", affine_init=1e-6, **_RUN)
_AS = dict(mlp_ratio=4.0, padding="zero", dilation=1, connection="parallel", **_RUN)
_MIXER = dict(tokens_mlp_dim=384, channels_mlp_dim=3072, approximate_gelu=True, **_RUN)


@pytest.fixture
def compile_block(monkeypatch):
  pytest.importorskip("libtpu")
  from jax.experimental import topologies

  monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # another process may have loaded libtpu
  topology = dict(topology_name="v5e:1x1", chips_per_host_bounds=(1, 1, 1))
  device = topologies.get_topology_desc(platform="tpu", **topology).devices[0]

  def compile_block(block, options, shape, policy="preactivations"):
    """The compiled (parameters, x, cotangent) -> (result, gradients)."""
    module, keep = remat.apply(block, policy)(**options), (False, layers.DropPath())
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, *keep), x)

    def run(params, x, cotangent):
      value, pull_back = jax.vjp(lambda params, x: module.apply(params, x, *keep), params, x)
      return value, pull_back(cotangent)

    sharding = jax.sharding.SingleDeviceSharding(device)
    arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), (params, x, x))
    return jax.jit(run).lower(*arguments).compile()

  return compile_block


def _bytes(compiled):
  return compiled.cost_analysis()["bytes accessed"]


def _cycles(compiled):
  """The compiler's estimate for the entry computation."""
  text = compiled.as_text()
  return sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', text[text.index("\nENTRY ") :])))


def test_the_shift_of_an_s2_block_costs_few_bytes(compile_block):
  shifted, plain = (
    compile_block(s2mlp.S2Block, dict(directions=directions, **_S2), (16, 14, 14, 768))
    for directions in ("four", "none")
  )
  assert _bytes(shifted) < 1.06 * _bytes(plain)
  assert _cycles(shifted) < 1.13 * _cycles(plain)


def test_the_shift_of_an_as_block_costs_few_bytes(compile_block):
  shifted, plain = (
    compile_block(asmlp.ASBlock, dict(shift_size=size, **_AS), (16, 28, 28, 192), "none") for size in (5, 1)
  )
  assert _bytes(shifted) < 1.03 * _bytes(plain)
  assert _cycles(shifted) < 1.15 * _cycles(plain)  # 1.12; of the whole AS-MLP-T, 1.06: docs/performance.md


def test_a_mixer_block_keeps_the_matrix_units_busy(compile_block):
  """Estimated share of v5e's peak, 4 x 128 x 128 multiply-adds a cycle."""
  images = 64
  compiled = compile_block(mixer.MixerBlock, _MIXER, (images, 196, 768))
  macs = 3 * images * (2 * 196 * 384 * 768 + 2 * 196 * 768 * 3072)
  assert macs / (4 * 128**2) > 0.5 * _cycles(compiled)
