"""ViT against timm's numbers, and its sizes."""

import jax
import jax.numpy as jnp
from parity import Golden, count, ours, relative_error, shapes
import pytest

from mlpvision.models import vit

# By image size; timm's numbers.
SIZES = {
  "vit_s16": {224: 22_050_664, 384: 22_196_584},
  "vit_b16": {224: 86_567_656, 384: 86_859_496},
  "vit_l16": {224: 304_326_632, 384: 304_715_752},
}


@pytest.fixture(scope="module")
def golden():
  golden = Golden("vit_timm")
  meta = golden.meta
  sizes = {name: meta[name] for name in ("patch_size", "num_heads", "num_classes")}
  model = vit.ViT(num_blocks=meta["depth"], hidden_dim=meta["embed_dim"], **sizes)
  return golden, model, ours(golden.params)


def test_features_and_logits_equal_timms(golden):
  golden, model, params = golden
  with jax.default_matmul_precision("highest"):
    logits = jax.jit(model.apply)({"params": params}, golden.images)
    (features,) = model.apply({"params": params}, golden.images, method="features")
    cls = model.clone(num_classes=None).apply({"params": params}, golden.images)
  assert features.shape == (2, 4, 4, 48)
  assert relative_error(logits, golden.out["logits"]) < 1e-5
  assert relative_error(features.reshape(2, 16, 48), golden.out["features"][:, 1:]) < 1e-5
  assert relative_error(cls, golden.out["features"][:, 0]) < 1e-5


def test_parameters_are_timms(golden):
  golden, model, params = golden
  assert shapes(model, *golden.meta["image_size"]) == jax.tree.map(lambda x: x.shape, params)


def test_all_variants_are_counted():
  assert SIZES.keys() == vit.VARIANTS.keys()


@pytest.mark.parametrize(("name", "image_size"), [(name, size) for name in SIZES for size in SIZES[name]])
def test_parameter_count(name, image_size):
  assert count(name, image_size) == SIZES[name][image_size]


def test_position_embedding_follows_the_images(golden):
  _, model, _ = golden
  small, wide = shapes(model, 32), shapes(model, 32, 48)
  assert (small.pop("pos_embedding"), wide.pop("pos_embedding")) == ((1, 17, 48), (1, 25, 48))
  assert small == wide


def test_other_number_of_patches_is_refused(golden):
  _, model, params = golden
  with pytest.raises(ValueError, match="for 16 patches of 8x8 pixels, the images have 24: resize `pos_embedding`"):
    model.apply({"params": params}, jnp.zeros((1, 32, 48, 3)))


def test_heads_must_divide_the_channels():
  with pytest.raises(ValueError, match="48 channels cannot be cut into 5 heads"):
    shapes(vit.ViT(hidden_dim=48, num_heads=5, num_blocks=1), 32)
