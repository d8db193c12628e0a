"""CycleMLP's shifts and convolutions: the original's values in a block, and forms that give other values."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models, weights
from mlpvision.models import cyclemlp, forms, layers, shift, split_attention
from mlpvision.models.pyramid import Pyramid

_NORM, _CONV = layers.LayerNorm, layers.nn.Conv


@functools.cache
def _map():
  return np.random.default_rng(0).standard_normal((1, 4, 5, 8), np.float32)


@pytest.mark.parametrize("axis", [1, 2])
def test_cycle_shift_is_its_definition(axis):
  x, expected = _map(), np.zeros_like(_map())
  for at in np.ndindex(x.shape):
    source = list(at)
    source[axis] += (0, 1, -1)[at[3] % 3]
    if 0 <= source[axis] < x.shape[axis]:
      expected[at] = x[tuple(source)]
  groups = (((0, 0), (0, 3)), ((-1, 0) if axis == 1 else (0, -1), (1, 3)), ((1, 0) if axis == 1 else (0, 1), (2, 3)))

  def run(x):
    found, pull_back = jax.vjp(functools.partial(shift.cycle_shift, axis=axis), x)
    plain, pull_back_plain = jax.vjp(lambda x: shift.by_roll(x, groups, "zero"), x)
    return (found, plain), (pull_back(x), pull_back_plain(x))

  values, (gradient, plain_gradient) = jax.jit(run)(x)
  for value in values:
    np.testing.assert_array_equal(value, expected)
  np.testing.assert_array_equal(gradient, plain_gradient)


def test_an_axis_that_is_none():
  with pytest.raises(ValueError, match="axis must be 1"):
    shift.cycle_shift(_map(), 3)


def test_the_originals_layers_and_dense_maps():
  """Among them `sfc_h`, which shifts along the width; and the norms of the dense mode, in a `Pyramid`."""
  module, params, _ = goldens.loaded("cyclemlp")
  _, _, arrays = goldens.read("cyclemlp")
  mixing, x = params["stage_0_block_0"]["mixing"], arrays["out/block0/mixing_input"]
  norms = {}
  for i in range(4):
    scale, bias = (arrays[f"dense_param/norm{2 * i}.{leaf}"] for leaf in ("weight", "bias"))
    norms[f"norm{i}"] = {"scale": scale, "bias": bias}

  def run(x, maps):
    sfc = [
      shift.cycle_shift(x, axis) @ mixing[n]["kernel"] + mixing[n]["bias"] for n, axis in (("sfc_h", 2), ("sfc_w", 1))
    ]
    mixed = cyclemlp.CycleMixing(jnp.float32).apply({"params": mixing}, x)
    return *sfc, mixed, *Pyramid(module.feature_strides).apply({"params": norms}, maps)

  with jax.default_matmul_precision("highest"):
    found = jax.jit(run)(x, tuple(arrays[f"out/stage{i}"] for i in range(4)))
  names = [f"block0/{name}" for name in ("sfc_h", "sfc_w", "mixing")] + [f"dense{i}" for i in range(4)]
  for name, array in zip(names, found, strict=True):
    assert goldens.relative_error(array, arrays[f"out/{name}"]) < 1e-5, name


def _shifted(x, axis, offsets):
  direction = (lambda step: (-step, 0)) if axis == 1 else (lambda step: (0, -step))
  return shift._shift(x, tuple((direction(step), (k, 3)) for k, step in enumerate(offsets)), "zero")


class _Other(split_attention.SplitAttention):
  def __post_init__(self):
    object.__setattr__(self, "layout", "branch")
    super().__post_init__()


_WRONG = {
  "axes exchanged": (cyclemlp, "cycle_shift", lambda x, axis: shift.cycle_shift(x, 3 - axis), 1e-2),
  "the other direction": (cyclemlp, "cycle_shift", functools.partial(_shifted, offsets=(0, -1, 1)), 1e-2),
  "the paper's offsets": (cyclemlp, "cycle_shift", functools.partial(_shifted, offsets=(0, 1, 2)), 1e-2),
  "contiguous groups": (cyclemlp, "cycle_shift", lambda x, axis: shift.axial_shift(x, 3, axis), 1e-2),
  "SAME": (layers.nn, "Conv", lambda *a, **o: _CONV(*a, **o | {"padding": "SAME"}), 1e-2),
  "the other layout": (cyclemlp, "SplitAttention", _Other, 1e-2),
  "epsilon": (layers, "LayerNorm", lambda **o: _NORM(**o | {"epsilon": 1e-6}), 2e-5),
  "tanh": (layers.forms, "gelu", lambda x: layers.nn.gelu(x, approximate=True), 2e-5),
}


@pytest.mark.parametrize("wrong", _WRONG)
def test_wrong_forms_give_other_values(monkeypatch, wrong):
  goldens.loaded("cyclemlp")
  *target, error = _WRONG[wrong]
  monkeypatch.setattr(*target)
  assert goldens.error_of_first_stage("cyclemlp") > error


def test_offsets_in_a_file_are_left_out(tmp_path):
  _, state, _ = goldens.read("cyclemlp")
  path = goldens.write(
    tmp_path, "cyclemlp", state | {"network.0.0.attn.sfc_h.offset": np.zeros((1, 32, 1, 1), "float32")}
  )
  module, params, info = weights.load(path)
  assert info.naming == "official"
  assert (module.mlp_ratio, module.depths) == ((4, 2, 3, 4), (1, 2, 1, 1))
  jax.tree.map(np.testing.assert_array_equal, params, goldens.loaded("cyclemlp").params)


def test_images_of_other_sizes_need_no_change(tmp_path):
  path = goldens.write(tmp_path, "cyclemlp")
  module, params, _ = weights.load(path, image_size=(40, 72))
  assert jax.eval_shape(module.apply, {"params": params}, jnp.zeros((1, 33, 47, 3))).shape == (1, 10)
  assert forms.group_masks((1, 2, 2, 4), (((0, 0), (1, 3)),))[0][1].ravel().tolist() == [False, True, False, False]
  assert models.backbone("cyclemlp_b1").feature_strides == (4, 8, 16, 32)
