"""S2-MLP's formula and options, drop path, and the errors of `create` and the modules."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models
from mlpvision.models import layers, s2mlp


def _tiny(**overrides):
  """(S2-MLP, parameters, images); all values are random, because a parameter of zeros or ones could go unnoticed."""
  sizes = dict(patch_size=4, num_blocks=2, hidden_dim=16, num_classes=5)
  model = models.create("s2mlp_wide", **sizes | overrides)
  images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
  random = np.random.default_rng(7)
  return model, jax.tree.map(lambda x: 0.3 * random.standard_normal(x.shape, np.float32), shapes), images


def _apply(model, params, images, **options):
  return jax.jit(lambda p, x: model.apply({"params": p}, x, **options))(params, images)


def _layer_norm(x, scale, bias):
  mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
  return (x - mean) / np.sqrt(variance + 1e-6) * scale + bias


def test_s2mlp_equals_its_formula_in_numpy():
  """Fig. 1 and Algorithm 1 in NumPy, because there is no original to compare with."""
  from math import erf

  model, params, images = _tiny()
  params = jax.tree.map(np.float64, params)
  gelu = np.vectorize(lambda v: v * 0.5 * (1 + erf(v / 2**0.5)))

  def dense(p, x):
    return x @ p["kernel"] + p["bias"]

  x = np.asarray(images, np.float64).reshape(2, 4, 4, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 4, 48)
  x = x @ params["stem"]["kernel"].reshape(48, 16) + params["stem"]["bias"]
  x = _layer_norm(x, **params["stem_norm"])
  for i in range(2):
    p = params[f"block_{i}"]
    y = gelu(dense(p["spatial_fc1"], x))
    shifted = y.copy()  # the border keeps its own value
    shifted[:, :, 1:, 0:4] = y[:, :, :-1, 0:4]
    shifted[:, :, :-1, 4:8] = y[:, :, 1:, 4:8]
    shifted[:, 1:, :, 8:12] = y[:, :-1, :, 8:12]
    shifted[:, :-1, :, 12:16] = y[:, 1:, :, 12:16]
    x = x + _layer_norm(dense(p["spatial_fc2"], shifted), **p["spatial_norm"])
    mlp = p["channel_mixing"]
    y = dense(mlp["Dense_1"], gelu(dense(mlp["Dense_0"], x)))
    x = x + _layer_norm(y, **p["channel_norm"])
  expected = dense(params["head"], x.mean((1, 2)))
  result = _apply(model, jax.tree.map(np.float32, params), images)
  np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_s2mlp_options_change_the_result():
  options = dict(norm_position="pre", border="zero", norm="none", stem_norm="none", directions="eight")
  model, params, images = _tiny(num_blocks=1)
  others = [model.clone(**{name: value}) for name, value in options.items()]
  plain, *changed = jax.jit(lambda p, x: [m.apply({"params": p}, x) for m in (model, *others)])(params, images)
  for name, logits in zip(options, changed, strict=True):
    assert not np.allclose(logits, plain), name


def test_without_shifts_no_patch_sees_another():
  """Table 7's last row: the output of a patch then depends only on this patch."""
  for directions, alone in (("none", True), ("four", False)):
    model, params, images = _tiny(directions=directions)
    images = jnp.concatenate([images, images.at[:, :4, :4].add(1.0)])
    before, after = jnp.split(_apply(model, params, images, method="features")[0], 2)
    assert bool((before[:, 0, 1] == after[:, 0, 1]).all()) == alone


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
  x, rates = jnp.ones((4000, 2, 3)), [0.0, 0.25, 0.5]
  for rescale in (True, False):
    drop_paths = layers.drop_paths(lambda: jax.random.key(0), rates, len(x), rescale=rescale)
    branches = []
    for rate, drop_path in zip(rates, drop_paths, strict=True):
      for branch in (0, 1):
        per_sample = np.asarray(drop_path(x, branch)).reshape(4000, -1)
        kept = np.float32(1 / (1 - rate) if rescale else 1.0)
        assert set(np.unique(per_sample)) == ({0.0, kept} if rate else {kept})
        assert (per_sample.min(1) == per_sample.max(1)).all()
        assert abs((per_sample[:, 0] == 0).mean() - rate) < 0.03
        branches.append(per_sample[:, 0] > 0)
    correlation = np.corrcoef(branches[2:])  # every branch has draws of its own
    assert np.abs(correlation - np.eye(4)).max() < 0.06


@pytest.mark.parametrize("norm", [layers.LayerNorm(), layers.Affine(0.5), s2mlp._norm("none", 0.0, jnp.float32, None)])
@pytest.mark.parametrize("rescale", [True, False])
def test_drop_path_as_a_norms_factor_drops_the_same_samples(norm, rescale):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((32, 2, 3, 16)), jnp.float32)

  class Branch(nn.Module):
    by_factor: bool

    @nn.compact
    def __call__(self, x):
      end = norm.copy() if isinstance(norm, nn.Module) else norm
      (drop_path,) = layers.drop_paths(lambda: jax.random.key(1), [0.4], len(x), branches=1, rescale=rescale)
      return end(x, drop_path.factor(x, 0)) if self.by_factor else drop_path(end(x), 0)

  variables = Branch(False).init(jax.random.key(0), x)
  variables = jax.tree.map(lambda p: p + 0.1 + jnp.arange(p.size) / p.size, variables)  # biases start at zero
  cotangent = jnp.cos(x)
  (plain, of_plain), (folded, of_folded) = (
    (value, pull_back(cotangent))
    for value, pull_back in (jax.vjp(Branch(by_factor).apply, variables, x) for by_factor in (False, True))
  )
  assert 0 < (np.asarray(plain) == 0.0).all((1, 2, 3)).sum() < 32
  for found, expected in zip(jax.tree.leaves((folded, of_folded)), jax.tree.leaves((plain, of_plain)), strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_no_classes_as_in_timm():
  model = models.create("s2mlp_wide", num_classes=0, num_blocks=1)
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
  assert outputs.shape == (2, *model.feature_info.channels()) == (2, 768)
  assert "head" not in variables["params"]


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("s2mlp_wid", {}, "did you mean s2mlp_wide"),
    ("s2mlp_wide", {"drop_pth": 0.1}, "did you mean drop_path"),
    ("asmlp_tiny", {"tokens_mlp_dim": 3}, "options: num_classes"),
  ],
)
def test_wrong_names_are_corrected(name, options, message):
  with pytest.raises(ValueError, match=message):
    models.create(name, **options)


@pytest.mark.parametrize(
  ("name", "options", "size", "message"),
  [
    ("s2mlp_wide", {}, 30, "patches of 16x16"),
    ("mixer_b16", {}, 100, "patches of 16x16"),
    ("asmlp_tiny", {"depths": (1, 1, 1, 1)}, 48, "divisible by 32"),
    ("asmlp_tiny", {"connection": "both"}, 64, "connection"),
    ("asmlp_tiny", {"shift_size": 2}, 64, "odd"),
    ("s2mlp_wide", {"norm": "batch"}, 32, "unknown norm"),
    ("s2mlp_wide", {"norm_position": "mid"}, 32, "norm_position"),
    ("asmlp_tiny", {"remat": True}, 64, "unknown remat True; one of none, block, preactivations"),
  ],
)
def test_wrong_options_are_named(name, options, size, message):
  model = models.create(name, **options)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
