"""ViP's permuted products, and its segments, which its weights do not tell."""

from flax.traverse_util import flatten_dict
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models, weights
from mlpvision.models import layers, split_attention, vip

_NORM = layers.LayerNorm


def _flat(model, size):
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))["params"]
  return flatten_dict(shapes, sep="/")


def test_the_originals_mixing():
  _, params, _ = goldens.loaded("vip")
  _, _, arrays = goldens.read("vip")
  mixing = {"params": params["stage_0_block_0"]["mixing"]}
  found = jax.jit(vip.PermuteMixing(jnp.float32).apply)(mixing, arrays["out/block0/mixing_input"])
  assert goldens.relative_error(found, arrays["out/block0/mixing"]) < 1e-5


class _Other(split_attention.SplitAttention):
  def __post_init__(self):
    object.__setattr__(self, "layout", "branch")
    super().__post_init__()


_WRONG = {
  "the text's segments": (vip.jnp, "einsum", None, 1e-2),
  "the other layout": (vip, "SplitAttention", _Other, 1e-2),
  "epsilon": (layers, "LayerNorm", lambda **o: _NORM(**o | {"epsilon": 1e-6}), 2e-5),
  "tanh": (layers.forms, "gelu", lambda x: layers.nn.gelu(x, approximate=True), 2e-5),
}


@pytest.mark.parametrize("wrong", _WRONG)
def test_wrong_forms_give_other_values(monkeypatch, wrong):
  goldens.loaded("vip")
  target, name, form, error = _WRONG[wrong]
  einsum = jnp.einsum
  monkeypatch.setattr(target, name, form or (lambda product, x, kernel: _by(einsum, product, x, kernel)))
  assert goldens.error_of_first_stage("vip") > error


def _by(einsum, product, x, kernel):
  """The paper's text: segments of N channels, so that channel s * N + n is n of segment s."""
  batch, side, _, count, size = x.shape
  text = x.reshape(batch, side, side, size, count).swapaxes(-1, -2)
  return einsum(product, text, kernel).swapaxes(-1, -2)


def test_other_images_are_refused(tmp_path):
  path = goldens.write(tmp_path, "vip")
  with pytest.raises(weights.WeightsError, match=r"do not determine segments\nPass segments="):
    weights.load(path)
  module, params, _ = weights.load(path, image_size=32)
  assert module == goldens.loaded("vip").module
  with pytest.raises(ValueError, match="8x8 patches of 4x4 pixels, the images have 64x64 pixels"):
    jax.eval_shape(module.apply, {"params": params}, jnp.zeros((1, 64, 64, 3)))
  with pytest.raises(ValueError, match="parameters for 8x8 patches cannot be adapted to 16x16"):
    weights.load(path, segments=8, image_size=64)
  with pytest.raises(ValueError, match="parameters for 8x8 patches cannot be adapted to 4x16"):
    weights.load(path, segments=8, image_size=(16, 64))


@pytest.mark.parametrize("name", vip.VARIANTS)
def test_published_weights_are_for_224_pixels(name):
  model = models.create(name, num_classes=3)
  shapes = {path: leaf.shape for path, leaf in _flat(model.clone(depths=(1,) * 4), 224).items()}
  told = vip.FAMILY.arguments(shapes)
  assert {key: getattr(model, key) for key in told if key != "depths"} == {
    k: v for k, v in told.items() if k != "depths"
  }


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(segments=28), "192 channels cannot be divided into 28 segments"),
    (dict(transitions=()), "stage 1 has another width than stage 0"),
    (dict(depths=(1, 1)), "one entry per stage"),
  ],
)
def test_sizes_that_cannot_be(options, message):
  with pytest.raises(ValueError, match=message):
    goldens.shapes(models.create("vip_s7", **options), 224)


def test_several_transitions_have_numbers_between_the_stages():
  sizes = dict(hidden_dim=(8, 8, 16, 16), depths=(1,) * 4, mlp_ratio=(1.0,) * 4, transitions=(2, 3))
  model = models.create("vip_s7", patch_size=2, segments=8, **sizes)
  names = {name for name in goldens.shapes(model, 16) if name.startswith(("merge", "stage"))}
  assert names == {f"stage_{s}_block_0" for s in (0, 1, 3, 5)} | {"merge_2", "merge_4"}
  assert model.feature_strides == (2, 2, 4, 8)
  told = vip.FAMILY.arguments({path: leaf.shape for path, leaf in _flat(model, 16).items()})
  assert told["transitions"] == (2, 3)
  np.testing.assert_array_equal(told["hidden_dim"], model.hidden_dim)
