"""Saving weights: the originals' names and layouts, and bit-identical loading."""

from families import FAMILIES
from flax.traverse_util import flatten_dict
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mlpvision import models, weights
from mlpvision.weights import shapes, tables

# Options that shapes do not determine.
_MORE = {
  "s2mlp_wide": dict(directions="eight", border="zero"),
  "s2mlp_deep": dict(norm_position="pre", stem_norm="none"),
  "asmlp_tiny": dict(shift_size=3, padding="circular"),
  "resmlp_s12": dict(layer_scale_init=1e-5),
  "swin_tiny": dict(window_size=4),
}
SMALL = {
  name: (row.image, {**options, **_MORE.get(name, {})})
  for row in FAMILIES.values()
  for name, options in row.small.items()
}


def make(name, **options):
  """A small module of a variant and random parameters."""
  size, sizes = SMALL[name]
  module = models.create(name, **{**dict(num_classes=5), **sizes, **options})
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *size, 3)))["params"]
  generator = np.random.default_rng(0)
  return module, jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", SMALL)
def test_round_trip(tmp_path, name):
  module, params = make(name)
  path = tmp_path / "weights.safetensors"
  view = weights.Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.9, "bilinear", 32)
  weights.save(path, module, params, view, list("abcde"))
  again, loaded, info = weights.load(path)
  assert again == module
  assert (info.preprocessing, info.class_names) == (view, tuple("abcde"))
  jax.tree.map(np.testing.assert_array_equal, params, loaded)
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", SMALL)
def test_one_block_of_each_stage_stands_for_all(name):
  module, params = make(name)
  found = {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
  assert shapes.expected(module, found) == found
  assert shapes.expected(module, {**found, "more": ()}) == found


def test_the_noted_family_decides_where_names_fit_several():
  names = ["norm.weight", "norm.bias", "head.weight", "head.bias"]
  for name in ("MlpMixer", "ViT", "FF"):
    assert tables.identify(names, name)[0].module.__name__ == name
  assert tables.identify(names, "Unknown") == tables.identify(names)


def test_as_many_class_names_as_classes(tmp_path):
  module, params = make("s2mlp_deep")
  with pytest.raises(weights.WeightsError, match="2 class names for a head of 5"):
    weights.save(tmp_path / "w.safetensors", module, params, class_names=["a", "b"])
  weights.save(tmp_path / "w.safetensors", module, params, class_names=list("abcde"))
  assert weights.load(tmp_path / "w.safetensors", num_classes=7).info.class_names is None


def test_training_options_are_not_of_the_file(tmp_path):
  module, params = make("asmlp_tiny", drop_path=0.3, dtype=jnp.bfloat16, remat="block")
  weights.save(tmp_path / "w.safetensors", module, params)
  again, _, _ = weights.load(tmp_path / "w.safetensors", drop_path=0.1)
  assert (again.drop_path, again.dtype, again.remat) == (0.1, jnp.float32, "none")


@pytest.mark.parametrize("name", [name for name, (suffix, _) in goldens.GOLDENS.items() if suffix != ".npz"])
def test_writes_the_originals_names_and_layout(tmp_path, name):
  _, original, _ = goldens.read(name)
  module, params, _ = goldens.loaded(name)
  weights.save(tmp_path / "out.safetensors", module, params)
  written = load_file(tmp_path / "out.safetensors")
  assert set(written) == set(original)
  for key, array in original.items():
    np.testing.assert_array_equal(written[key], array)


def test_writes_the_mixers_npz(tmp_path):
  _, original, _ = goldens.read("mixer_npz")
  module, params, _ = goldens.loaded("mixer_npz")
  weights.save(tmp_path / "out.npz", module, params)
  with np.load(tmp_path / "out.npz") as written:
    assert set(written.files) == set(original)
    for key, array in original.items():
      np.testing.assert_array_equal(written[key], array)


def test_saves_device_arrays_of_bfloat16_and_a_variant_by_name(tmp_path):
  module, params = make("s2mlp_wide")
  params = jax.tree.map(lambda array: jnp.asarray(array, jnp.bfloat16), params)
  weights.save(tmp_path / "w.safetensors", module, params)
  _, loaded, _ = weights.load(tmp_path / "w.safetensors")
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a, np.float32), b), params, loaded)
  with pytest.raises(weights.WeightsError, match="not of MlpMixer"):
    weights.save(tmp_path / "w.safetensors", "mixer_b16", params)


def test_refuses_what_cannot_be_written(tmp_path):
  module, params = make("s2mlp_wide")
  with pytest.raises(weights.WeightsError, match="no .npz layout"):
    weights.save(tmp_path / "w.npz", module, params)
  with pytest.raises(weights.WeightsError, match="suffix is '.pth'"):
    weights.save(tmp_path / "w.pth", module, params)
  assert not list(tmp_path.iterdir())
