"""FF against the original implementation's numbers, and its sizes."""

import jax
from parity import Golden, count, ours, relative_error, shapes
import pytest

from mlpvision.models import ff

# Independent arithmetic; 7.7M, 62M and 206M in the original's README.
SIZES = {"ff_tiny": 7_676_332, "ff_base": 61_943_020, "ff_large": 206_213_048}


@pytest.fixture(scope="module")
def golden():
  golden = Golden("ff")
  meta = golden.meta
  sizes = dict(patch_size=meta["patch_size"], num_blocks=meta["depth"], hidden_dim=meta["embed_dim"])
  return golden, ff.FF(num_classes=meta["num_classes"], **sizes), ours(golden.params)


def test_logits_equal_the_originals(golden):
  golden, model, params = golden
  with jax.default_matmul_precision("highest"):
    logits = jax.jit(model.apply)({"params": params}, golden.images)
  assert relative_error(logits, golden.out["logits"]) < 1e-5


def test_parameters_are_the_originals(golden):
  golden, model, params = golden
  assert shapes(model, *golden.meta["image_size"]) == jax.tree.map(lambda x: x.shape, params)


def test_all_variants_are_counted():
  assert SIZES.keys() == ff.VARIANTS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_parameter_count(name):
  assert count(name, 224) == SIZES[name]


@pytest.mark.parametrize(("height", "width"), [(40, 40), (64, 16)])
def test_other_grid_is_refused(golden, height, width):
  golden, model, params = golden
  images = jax.numpy.zeros((1, height, width, 3))
  with pytest.raises(ValueError, match=f"for 4x4 patches of 8x8 pixels, the images have {height // 8}x{width // 8}"):
    model.apply({"params": params}, images)
