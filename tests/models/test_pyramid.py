"""Maps for dense prediction: images of any size, also in a larger canvas, and the four maps of `Pyramid`."""

import functools

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models
from mlpvision.models import asmlp, layers, naming, pyramid, swin

_STAGES = dict(hidden_dim=8, depths=(1, 1, 1, 1))
_WIDE = dict(hidden_dim=(8, 8, 12, 12), depths=(1, 1, 1, 1), mlp_ratio=(2.0, 2.0, 2.0, 2.0))
_MODELS = {
  "asmlp_tiny": _STAGES,
  "asmlp_small": dict(**_STAGES, shift_size=3, connection="serial"),
  "swin_tiny": dict(hidden_dim=8, depths=(1, 2, 1, 2), num_heads=(1, 2, 2, 2), window_size=3),
  "cyclemlp_b1": _WIDE,
  "s2mlpv2_small7": dict(_WIDE, patch_size=4),
  "poolformer_s12": dict(_WIDE, layer_scale_init=0.5),
  "s2mlp_wide": dict(patch_size=16, num_blocks=1, hidden_dim=16),
  "s2mlp_deep": dict(patch_size=8, num_blocks=1, hidden_dim=16, border="zero"),
}


def _random(tree):
  """All values are random, because a parameter of zeros or ones could go unnoticed."""
  random = np.random.default_rng(0)
  return jax.tree.map(lambda x: 0.4 * random.standard_normal(x.shape, np.float32), tree)


def _maps(model, params, images, sizes=None):
  """(the backbone's maps, the pyramid's)."""
  maps = model.apply({"params": params["backbone"]}, images, sizes=sizes, method="features")
  head = pyramid.Pyramid(model.feature_strides, model.map_norm)
  return maps, head.apply({"params": params["pyramid"]}, maps, sizes)


def _params(model):
  def init(images):
    maps, backbone = model.init_with_output(jax.random.key(0), images, method="features")
    head = pyramid.Pyramid(model.feature_strides, model.map_norm)
    return {"backbone": backbone["params"], "pyramid": head.init(jax.random.key(0), maps)["params"]}

  return _random(jax.eval_shape(init, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)))


@pytest.mark.parametrize("name", _MODELS)
def test_an_image_in_a_canvas_has_the_maps_of_the_image_alone(name):
  """In all stages and through the pyramid, whose maps are zero beyond the image."""
  model, canvas = models.backbone(name, **_MODELS[name]), (160, 224)
  height, width = (96, 160) if name == "asmlp_tiny" else (90, 131)
  images = np.random.default_rng(1).standard_normal((2, *canvas, 3), np.float32)

  def run(params, images, alone):
    return _maps(model, params, images, jnp.asarray((canvas, (height, width)))), _maps(model, params, alone)

  results = jax.jit(run)(_params(model), images, images[1:, :height, :width])
  in_canvas, expected = jax.tree.map(np.array, results)
  for strides, found, maps in zip((model.feature_strides, pyramid.STRIDES), in_canvas, expected, strict=True):
    for stride, x, alone in zip(strides, found, maps, strict=True):
      rows, columns = -(-height // stride), -(-width // stride)
      assert goldens.relative_error(x[1, :rows, :columns], alone[0, :rows, :columns]) < 1e-5
      x[1, :rows, :columns] = 0
  assert not any(x[1].any() for x in in_canvas[1])


@pytest.mark.parametrize(("name", "options"), [("asmlp_tiny", dict(depths=(0, 1, 0, 0))), ("s2mlp_deep", {})])
def test_what_lies_beyond_an_image_gets_no_gradient(name, options):
  """Also with remat, and of an empty image, as in the padding of a batch."""
  model = models.backbone(name, **_MODELS[name] | options | {"remat": "block"})
  images = np.random.default_rng(1).standard_normal((2, 64, 96, 3), np.float32)

  def value(params, images):
    return sum(jnp.cos(x).sum() for x in _maps(model, params, images, jnp.asarray(((35, 67), (0, 0))))[1])

  of_params, of_images = jax.jit(jax.grad(value, (0, 1)))(_params(model), images)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(of_params))
  of_images = np.array(of_images)
  assert 0 < np.abs(of_images[0, :35, :67]).max() < np.inf
  of_images[0, :35, :67] = 0
  assert not of_images.any()


def _attention(params, x, heads, window, shift):
  """Swin's window attention of a map [H, W, C], in plain loops: zeros pad it, then the windows are shifted.

  Follows Swin's detection code in words: a query sees the keys of its window that the cyclic shift did not bring there.
  """
  height, width, channels = x.shape
  whole = [-(-size // window) * window for size in (height, width)]
  padded = np.zeros((*whole, channels))
  padded[:height, :width] = x
  qkv = padded @ params["attention"]["qkv"]["kernel"] + params["attention"]["qkv"]["bias"]
  query, key, value = np.moveaxis(qkv.reshape(*whole, 3, heads, channels // heads), 2, 0)
  out = np.zeros((height, width, heads, channels // heads))

  def window_of(position, size):
    """Its number after the shift to lower positions, and whether it then passed the border."""
    moved = (position - shift) % size
    return moved // window, position < shift

  for y, x in np.ndindex(height, width):
    keys = [
      (r, c)
      for r, c in np.ndindex(*whole)
      if window_of(r, whole[0]) == window_of(y, whole[0]) and window_of(c, whole[1]) == window_of(x, whole[1])
    ]
    for head in range(heads):
      scores = [
        query[y, x, head] @ key[r, c, head] * (channels // heads) ** -0.5
        + params["relative_position_bias"][y - r + window - 1, x - c + window - 1, head]
        for r, c in keys
      ]
      weights = np.exp(scores - np.max(scores))
      out[y, x, head] = sum(w * value[r, c, head] for w, (r, c) in zip(weights / weights.sum(), keys, strict=True))
  return (
    out.reshape(height, width, channels) @ params["attention"]["proj"]["kernel"] + params["attention"]["proj"]["bias"]
  )


@pytest.mark.parametrize(("size", "shifted"), [((5, 8), True), ((5, 8), False), ((3, 2), True)])
def test_windows_of_dense_prediction_are_those_of_swins_detection_code(size, shifted):
  options = dict(num_heads=2, window_size=4, window_padding="before_shift", dropout=0.0)
  block = swin.SwinBlock(**options, shifted=shifted, mlp_ratio=1.0, dtype=jnp.float32)
  x = np.random.default_rng(3).standard_normal((1, *size, 8), np.float32)
  params = _random(jax.eval_shape(lambda: block.init(jax.random.key(0), x, False, layers.DropPath()))["params"])
  params["channel_mixing"] = jax.tree.map(np.zeros_like, params["channel_mixing"])
  normed = (x[0] - x[0].mean(-1, keepdims=True)) / np.sqrt(x[0].var(-1, keepdims=True) + 1e-5)
  normed = normed * params["norm1"]["scale"] + params["norm1"]["bias"]
  expected = x[0] + _attention(params, normed, heads=2, window=4, shift=2 if shifted else 0)
  found = jax.jit(lambda p, x: block.apply({"params": p}, x, False, layers.DropPath()))(params, x)
  np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5)


def test_without_sizes_nothing_is_masked_or_padded():
  model = models.backbone("asmlp_tiny", **_STAGES, shift_size=1)
  params, images = _params(model), jnp.zeros((1, 64, 64, 3))
  plain, masked = (
    str(jax.make_jaxpr(functools.partial(_maps, model))(params, images, sizes))
    for sizes in (None, jnp.full((1, 2), 64))
  )
  for operation in ("select_n", " pad[", "iota"):
    assert operation not in plain
  assert "select_n" in masked


@pytest.mark.parametrize(("stride", "widths"), [(4, (16,) * 4), (8, (8, 16, 16, 16)), (32, (2, 4, 8, 16))])
def test_one_map_becomes_four(stride, widths):
  x = jax.ShapeDtypeStruct((2, 96 // stride, 160 // stride, 16), jnp.bfloat16)
  head = pyramid.Pyramid((stride,), dtype=jnp.bfloat16)
  maps, variables = jax.eval_shape(lambda x: head.init_with_output(jax.random.key(0), (x,)), x)
  assert [m.shape for m in maps] == [(2, 96 // s, 160 // s, c) for s, c in zip(pyramid.STRIDES, widths, strict=True)]
  assert {m.dtype for m in maps} == {jnp.dtype(jnp.bfloat16)}
  assert {"norm0", "norm1", "norm2", "norm3"} <= variables["params"].keys()


def test_upsampling_is_a_transposed_convolution():
  layer = pyramid.Upsampling(3)
  x = np.random.default_rng(0).standard_normal((1, 2, 3, 4), np.float32)
  params = _random(jax.eval_shape(layer.init, jax.random.key(0), x)["params"])
  expected = np.zeros((1, 4, 6, 3))
  for y, z, i, j in np.ndindex(2, 3, 2, 2):
    expected[0, 2 * y + i, 2 * z + j] = x[0, y, z] @ params["kernel"][:, i, j] + params["bias"]
  np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)


def test_a_higher_stride_keeps_the_largest_values():
  x = np.random.default_rng(0).standard_normal((1, 3, 5, 8), np.float32)
  head = pyramid.Pyramid((16,))
  maps, _ = jax.jit(lambda x: head.init_with_output(jax.random.key(0), (x,)))(x)
  corner, edge = x[0, :2, :2].max((0, 1)), x[0, 2:, 4:].max((0, 1))
  for found, expected in ((maps[3][0, 0, 0], corner), (maps[3][0, 1, 2], edge)):
    np.testing.assert_allclose(found, (expected - expected.mean()) / expected.std(), rtol=1e-3)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("mixer_h14", {}),
    ("vit_s16", {"patch_size": 64}),
    ("asmlp_tiny", {"depths": (2, 2)}),
    ("swin_tiny", {"patch_size": 8}),
  ],
)
def test_backbones_without_a_pyramid_are_refused(name, options):
  with pytest.raises(ValueError, match=r"with stride .* must have strides 4, 8, 16 and 32"):
    models.backbone(name, **options)


def test_odd_maps_are_padded_with_zeros_before_they_are_merged():
  x = np.random.default_rng(0).standard_normal((1, 3, 5, 4), np.float32)
  for merging in (asmlp.PatchMerging(jnp.float32), swin.PatchMerging(jnp.float32)):
    even = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    variables = _random(jax.eval_shape(merging.init, jax.random.key(0), even))
    padded, odd = jax.jit(lambda *maps: [merging.apply(variables, y) for y in maps])(even, x)  # noqa: B023
    np.testing.assert_allclose(odd, padded, rtol=1e-5, atol=1e-5)


def test_families_that_see_their_whole_canvas_refuse_sizes():
  for family in models.FAMILIES:
    assert family.patches is None or not family.module.any_size
    if family.patches is not None:
      model = models.create(next(iter(family.variants)))
      with pytest.raises(ValueError, match="without `sizes`"):
        model.features(jnp.zeros((1, 32, 32, 3)), sizes=jnp.zeros((1, 2), jnp.int32))


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("asmlp_tiny", {"padding": "circular"}, "padding='zero'"),
    ("swin_tiny", {}, "window_padding='before_shift'"),
    ("swin_tiny", {"window_padding": "first"}, "unknown window_padding 'first'"),
  ],
)
def test_options_without_exact_features_are_refused(name, options, message):
  model = models.create(name, **options)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      lambda x: model.init(jax.random.key(0), x, sizes=jnp.asarray([[32, 32]]), method="features"),
      jnp.zeros((1, 32, 32, 3)),
    )


@pytest.mark.parametrize("name", ["asmlp", "swin"])
def test_names_of_a_backbone_within_a_segmenter(name):
  (family,) = [family for family in models.FAMILIES if family.module.__module__.endswith(name)]
  (table,) = [table for table in family.tables if table.name == "official"]
  inside = naming.within(table, "backbone", *pyramid.ROWS)
  names = {
    "asmlp": goldens.read("asmlp")[1],
    "swin": ["layers.0.downsample.norm.bias", "layers.1.blocks.0.mlp.fc1.bias"],
  }
  for their_name in names[name]:
    path, _ = table.ours(their_name)
    assert inside.ours(f"backbone.{their_name}")[0] == f"backbone/{path}"
    assert inside.theirs(f"backbone/{path}")[0] == f"backbone.{their_name}"
  assert inside.ours("backbone.norm3.weight")[0] == "pyramid/norm3/scale"
  assert inside.ours("norm3.weight") is None
