"""The contract of docs/design.md for small models of every family: calls, parameter names, training, remat, sizes."""

import dataclasses
import functools
import re

from families import FAMILIES
from flax.traverse_util import flatten_dict
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models, sharding
from mlpvision.models import cost
from mlpvision.training import lr_multipliers
from mlpvision.weights import resize
from mlpvision.weights.loading import RUN_OPTIONS

_IMAGES, _SMALL = {}, {}
for _row in FAMILIES.values():
  for _name, _options in _row.small.items():
    _SMALL[_name] = _options
    _IMAGES[_name] = np.random.default_rng(0).normal(size=(3, *_row.image, 3)).astype(np.float32)
_KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default
_OLD_NOT_DECAYED = ("pos_embedding", "cls_pos_embedding", "cls_token", "relative_position_bias")


def _create(name, **options):
  return models.create(name, **{**_SMALL[name], "num_classes": 5, **options})


@functools.cache
def _params(name):
  """All values are random, because a parameter of zeros or ones could go unnoticed."""
  random = np.random.default_rng(1)

  def leaf(path, shape):
    return (path[-1].key == "scale") + random.normal(size=shape).astype(np.float32) * 0.2

  tree = goldens.shapes(_create(name), *_IMAGES[name].shape[1:3])
  return jax.tree.map_with_path(leaf, tree, is_leaf=lambda x: isinstance(x, tuple))


def _paths(name):
  return flatten_dict(_params(name), sep="/")


def _loss(name, params, **options):
  logits = _create(name, **options).apply({"params": params}, _IMAGES[name], train=True, rngs={"dropout": _KEY})
  return jnp.square(logits).sum(), logits


@functools.cache
def _results(name):
  """The results for all tests, from one compilation per model."""

  def run(params):
    apply = functools.partial(_apply, name, params)
    results = {
      "logits": apply(),
      "pooled": apply(num_classes=None),
      "maps": apply(method="features"),
      "bfloat16": apply(dtype=jnp.bfloat16),
    }
    gradient = jax.grad(lambda p: _loss(name, p, drop_path=0.2, dropout=0.1), has_aux=True)
    results["gradient"], results["trained"] = gradient(params)
    return results

  return jax.jit(run)(_params(name))


def _apply(name, params, method=None, **options):
  return _create(name, **options).apply({"params": params}, _IMAGES[name], method=method)


def test_every_family_has_its_row():
  names = [family.module.__module__.rpartition(".")[2] for family in models.FAMILIES]
  assert sorted(FAMILIES) == sorted(names)
  for family, name in zip(models.FAMILIES, names, strict=True):
    row = FAMILIES[name]
    assert family.variants.keys() == row.parameters.keys() == row.macs.keys()
    assert next(iter(row.small)) in family.variants
    for golden in row.goldens:
      assert (goldens.DATA / f"{golden}.npz").exists()
    attributes = {field.name for field in dataclasses.fields(family.module)}
    assert attributes >= {*family.free, "num_classes", "patch_size", "hidden_dim", *RUN_OPTIONS}
    assert family.resize is None or (family.resize in resize.WAYS and family.patches)
    published = any(table.rows for table in family.tables)
    assert row.goldens or not published, f"{name} reads published weights: no golden file shows it"


@pytest.mark.parametrize("name", _SMALL)
def test_logits_pooled_features_and_maps(name):
  results, head = _results(name), _params(name)["head"]
  assert (results["logits"].shape, results["logits"].dtype) == ((3, 5), jnp.float32)
  assert results["pooled"].shape == (3, len(head["kernel"]))
  np.testing.assert_allclose(results["pooled"] @ head["kernel"] + head["bias"], results["logits"], atol=1e-5)
  (height, width), strides = _IMAGES[name].shape[1:3], _create(name).feature_strides
  assert isinstance(results["maps"], tuple)
  assert [x.shape[:3] for x in results["maps"]] == [(3, -(-height // s), -(-width // s)) for s in strides]
  info = _create(name).feature_info
  assert (info.channels(), info.reduction()) == ([x.shape[-1] for x in results["maps"]], list(strides))
  assert info[0] == {"num_chs": info.channels()[0], "reduction": strides[0], "index": 0}


@pytest.mark.parametrize("name", _SMALL)
def test_bfloat16_computes_in_it_and_returns_float32(name):
  results = _results(name)
  assert results["bfloat16"].dtype == jnp.float32
  assert 0 < goldens.relative_error(results["bfloat16"], results["logits"]) < 0.05
  maps = jax.eval_shape(lambda p: _apply(name, p, "features", dtype=jnp.bfloat16), _params(name))
  assert all(x.dtype == jnp.bfloat16 for x in maps)
  params = jax.eval_shape(_create(name, dtype=jnp.bfloat16).init, _KEY, _IMAGES[name])
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))


@pytest.mark.parametrize("name", _SMALL)
def test_drop_path_and_dropout_act_in_training_only(name):
  results = _results(name)
  assert goldens.relative_error(results["trained"], results["logits"]) > 0.001
  for option in (dict(dropout=0.5), dict(drop_path=0.5)):
    assert "random_bits" in str(jax.make_jaxpr(functools.partial(_loss, name, **option))(_params(name)))
  plain, random = (
    jax.jit(functools.partial(_apply, name, **options)).lower(_params(name)).as_text()
    for options in ({}, dict(dropout=0.5, drop_path=0.9))
  )
  assert random == plain


@pytest.mark.parametrize("name", _SMALL)
def test_every_parameter_is_trained(name):
  for path, gradient in flatten_dict(_results(name)["gradient"], sep="/").items():
    assert np.abs(gradient).max() > 0, path


@pytest.mark.parametrize(
  ("name", "remat"),
  [
    ("s2mlp_wide", "block"),
    ("swin_tiny", "preactivations"),
    pytest.param("s2mlp_wide", "preactivations", marks=pytest.mark.slow),
    pytest.param("swin_tiny", "block", marks=pytest.mark.slow),
  ],
)
def test_remat_changes_nothing(name, remat):
  """For a plain stack and a pyramid, with drop path and dropout; the next test covers all families."""
  found = jax.jit(jax.grad(lambda p: _loss(name, p, drop_path=0.2, dropout=0.1, remat=remat)[0]))(_params(name))
  expected = _results(name)["gradient"]
  assert max(jax.tree.leaves(jax.tree.map(goldens.relative_error, found, expected))) < 1e-4


@pytest.mark.parametrize("name", _SMALL)
def test_remat_keeps_preactivations_and_repeats_no_product(name):
  """Counts the products in the gradient's jaxpr: "block" adds those of the block, "preactivations" adds none."""

  def products_and_kept(remat):
    def run(params):
      value, pull_back = jax.vjp(lambda params: _apply(name, params, remat=remat).sum(), params)
      return pull_back, pull_back(jnp.ones_like(value))

    jaxpr, (pull_back, _) = jax.make_jaxpr(run, return_shape=True)(_params(name))
    return cost.macs(cost.products(jaxpr.jaxpr)), sum(x.size for x in jax.tree.leaves(pull_back))

  (products, kept), (block, _), (pre, kept_pre) = map(products_and_kept, ("none", "block", "preactivations"))
  attention = "vit" in name or "swin" in name  # the products of activations are recomputed
  assert products < block
  assert products <= pre < block if attention else pre == products
  assert kept_pre < kept


@pytest.mark.parametrize("name", _SMALL)
def test_names_of_parameters(name):
  """Layer-wise learning rates and fine-tuning find stem, head and blocks; weight decay applies only to kernels."""
  params, model = _params(name), _create(name)
  side = params["stem"]["kernel"].shape[0]
  assert side in (model.patch_size, 2 * model.patch_size - 1)  # patches, or an overlapping convolution
  width = model.hidden_dim[0] if isinstance(model.hidden_dim, tuple) else model.hidden_dim
  assert params["stem"]["kernel"].shape == (side, side, 3, width)
  assert params["head"].keys() == {"kernel", "bias"}
  depths = getattr(model, "depths", None) or [model.num_blocks]
  top = sum(depths) + 1
  factors = lr_multipliers.factors(params, layer_decay=0.5)
  layers = {key: {top + round(np.log2(x)) for x in jax.tree.leaves(tree)} for key, tree in factors.items()}
  assert (layers["stem"], layers["head"]) == ({0}, {top})
  blocks = [key for key in params if "channel_mixing" in params[key]]
  assert sorted(*zip(*(layers[key] for key in blocks), strict=True)) == list(range(1, top))
  for path, array in _paths(name).items():
    decayed = array.ndim > 1 and path.rpartition("/")[2] not in _OLD_NOT_DECAYED
    assert decayed == bool(re.search("kernel$", path)), path


@pytest.mark.parametrize("name", [next(iter(row.small)) for row in FAMILIES.values()])
def test_the_model_axis_cuts_the_channel_mlps(name):
  """The first layer of each block by columns, with its bias; the second by rows; nothing else."""
  mesh = sharding.make_mesh(data=4, model=2)
  (family,) = [family for family in models.FAMILIES if name in family.variants]
  shardings = flatten_dict(sharding.tree_shardings(_params(name), mesh, model_axis=family.model_axis), sep="/")
  for path, array in _paths(name).items():
    expected = list(array.shape)
    if match := re.search(r"channel_mixing/(Dense_\d/\w+)$", path):
      cut = {"Dense_0/kernel": 1, "Dense_0/bias": 0, "Dense_1/kernel": 0}.get(match[1])
      if cut is not None:
        expected[cut] //= 2
    assert shardings[path].shard_shape(array.shape) == tuple(expected), path


@pytest.mark.parametrize("name", _SMALL)
def test_images_that_do_not_fit_are_refused(name):
  model = _create(name)
  divisor = model.size_divisor
  if not hasattr(model, "segments"):
    assert goldens.shapes(model, divisor, 3 * divisor)
  if len(_params(name)["stem"]["kernel"]) == model.patch_size:  # overlapping convolutions take any size
    with pytest.raises(ValueError, match=f"{divisor + model.patch_size // 2}|halved"):
      goldens.shapes(model, divisor + model.patch_size // 2)
  family = models.family_of(model)
  if family.patches is None:
    assert goldens.shapes(model, divisor) == goldens.shapes(model, 2 * divisor, divisor)
  else:
    with pytest.raises(ValueError, match=r"for (6|2x2|2x3) patches of 8x8 pixels, the images have (9|3x3|24x24)"):
      jax.eval_shape(model.apply, {"params": _params(name)}, jnp.zeros((1, 24, 24, 3)))


@pytest.mark.parametrize("name", _SMALL)
def test_shapes_tell_the_sizes(name):
  """Checks all attributes that the family derives from shapes, except ambiguous ones."""
  model = _create(name)
  told = models.family_of(model).arguments({path: array.shape for path, array in _paths(name).items()})
  assert {key: value for key, value in told.items() if value is not None and value != getattr(model, key)} == {}
  assert told.keys() >= {"patch_size", "hidden_dim"}
