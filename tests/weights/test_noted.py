"""What a .safetensors file notes of its model, images and classes: believed only where its arrays agree."""

import json
import struct

import jax
import numpy as np
from PIL import Image
import pytest

from mlpvision import models, trained, weights
from mlpvision.errors import UserError

_VIEW = weights.Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, image_size=32)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """The path of an S2-MLP of one block with three classes."""
  model = models.create("s2mlp_wide", num_classes=3, num_blocks=1, hidden_dim=8, mlp_ratio=2.7)
  params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  path = tmp_path_factory.mktemp("noted") / "good.safetensors"
  weights.save(path, model, params, _VIEW, ["a", "b", "c"])
  return path


@pytest.fixture
def changed(written, tmp_path):
  """make(change): a copy of the file, after `change` of the dict that it notes, or with another text."""

  def make(change):
    data = written.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    noted = json.loads(header["__metadata__"]["mlpvision"])
    if callable(change):
      change(noted)
    header["__metadata__"]["mlpvision"] = json.dumps(noted) if callable(change) else change
    head = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])
    return tmp_path / "x.safetensors"

  return make


def test_what_is_true_loads(changed):
  found = trained.load(changed(lambda noted: None))
  assert found.model.mlp_ratio == 2.7  # of 8 channels: 21 hidden ones, which are 2.625 times as many
  assert found.class_names == ("a", "b", "c")
  found.predict(Image.new("RGB", (40, 50)))


@pytest.mark.parametrize(
  ("options", "match"),
  [
    (dict(num_blocks=10**9), "num_blocks=1000000000"),
    (dict(num_blocks=20_000), "num_blocks=20000, but its arrays are of num_blocks=1"),
    (dict(num_blocks=2), "num_blocks=2, but its arrays are of num_blocks=1"),
    (dict(num_blocks=0), "num_blocks=0"),
    (dict(num_blocks=-1), "num_blocks=-1"),
    (dict(num_blocks="x"), "num_blocks=x"),
    (dict(num_blocks=True), "num_blocks=True"),
    (dict(num_blocks=1.0), "num_blocks=1.0"),
    (dict(num_blocks=None), "num_blocks=None"),
    (dict(hidden_dim=2**40), "hidden_dim"),
    (dict(hidden_dim=10**4000), "hidden_dim"),
    (dict(hidden_dim=16), "hidden_dim=16, but its arrays are of hidden_dim=8"),
    (dict(patch_size=0), "patch_size"),
    (dict(patch_size=[16, 16]), "patch_size"),
    (dict(mlp_ratio=float("nan")), "mlp_ratio=nan"),
    (dict(mlp_ratio=float("inf")), "mlp_ratio=inf"),
    (dict(mlp_ratio=1e300), "mlp_ratio"),
    (dict(mlp_ratio=1e5), r"of another shape .*\n.*channel_mixing"),
    (dict(mlp_ratio=0), "does not match|of another shape"),
    (dict(mlp_ratio=-2), "does not match|of another shape"),
    (dict(directions={"a": 1}), "directions"),
    (dict(directions=[1, 2]), "directions"),
    (dict(directions=[[1, 2, 3]]), "directions"),
    (dict(directions=[["a", "b"]]), "directions"),
    (dict(directions=[[0, 1]] * 200), "directions"),
    (dict(directions=[[0, 1]] * 3), "not divisible"),
    (dict(directions=[[0, 10**9]]), "directions"),
    (dict(directions="nowhere"), "unknown directions 'nowhere'"),
    (dict(directions=5), "directions"),
    (dict(border="none"), "unknown border"),
    (dict(border=[[0, 0]]), "border"),
    (dict(norm="x"), "unknown norm"),
    (dict(norm="none"), r"unexpected \(4\)"),
    (dict(affine_init="x"), "affine_init"),
    (dict(foo=1), "no option 'foo'"),
    ({"\x1b[31m": 1}, r"no option '\\\\x1b"),
    (dict(name="x"), "no option 'name'"),
    (dict(parent=None), "no option 'parent'"),
    (dict(num_classes=5), "no option 'num_classes'"),
    (dict(dtype="float16"), "no option 'dtype'"),
  ],
  ids=str,
)
def test_options(changed, options, match):
  path = changed(lambda noted: noted["options"].update(options))
  with pytest.raises(weights.WeightsError, match=match) as error:
    weights.load(path)
  assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
  "view",
  [
    dict(crop_ratio=0),
    dict(crop_ratio=float("nan")),
    dict(crop_ratio=1e9),
    dict(crop_ratio=-1),
    dict(crop_ratio="1"),
    dict(crop_ratio=True),
    dict(crop_ratio=None),
    dict(image_size=0),
    dict(image_size=-32),
    dict(image_size=10**9),
    dict(image_size=32.0),
    dict(image_size="32"),
    dict(image_size=True),
    dict(image_size=[32]),
    dict(image_size=[32, 0]),
    dict(mean=[0.5, 0.5]),
    dict(mean=[0.5] * 4),
    dict(mean=0.5),
    dict(mean=[0.5, 0.5, "x"]),
    dict(mean=[0.5, 0.5, float("nan")]),
    dict(mean=[123, 116, 103]),
    dict(mean={"r": 0.5}),
    dict(std=[0.5, 0.5, 0]),
    dict(std=[0.5, 0.5, -0.5]),
    dict(std=[0.5, 0.5, float("inf")]),
    dict(std=[0.5, 0.5, 1e-300]),
    dict(std=None),
    dict(interpolation="nearest"),
    dict(interpolation=3),
    dict(interpolation=["bicubic"]),
    dict(unknown=1),
  ],
  ids=str,
)
def test_preprocessing(changed, view):
  path = changed(lambda noted: noted["preprocessing"].update(view))
  with pytest.raises(weights.WeightsError, match=f"metadata is invalid .*{next(iter(view))}"):
    weights.load(path)


@pytest.mark.parametrize(
  "names",
  ["abc", {"a": 1}, 3, True, ["a", "b"], list("abcd"), [], ["a", "b", 3], ["a", "b", None], ["a", ["b"], "c"],
   ["a", "b", "\x1b[31mred"], ["a", "b", "c\n"], ["a", "b", "\x9b1m"], ["a", "b", "c" * 2000]],
  ids=lambda names: repr(names)[:40],
)  # fmt: skip
def test_class_names(changed, names):
  with pytest.raises(weights.WeightsError, match="class names?") as error:
    weights.load(changed(lambda noted: noted.update(class_names=names)))
  assert str(error.value).isprintable()


@pytest.mark.parametrize(
  "text",
  [
    "[" * 100_000,
    '{"options":' + "[" * 900 + "]" * 900 + "}",
    '{"options": {"num_blocks": ' + "9" * 5000 + "}}",
    "null",
    '"x"',
    '{"options": []}',
    '{"options": null}',
    '{"preprocessing": 3}',
    '{"family": 3}',
    " " * (11 << 20),
  ],
  ids=lambda text: text[:30],
)
def test_other_metadata(changed, text):
  with pytest.raises(weights.WeightsError, match="metadata is invalid"):
    weights.load(changed(text))


@pytest.mark.parametrize("size", [8, 33])
def test_an_image_size_that_the_model_does_not_take(changed, size):
  with pytest.raises(UserError, match=f"cannot take {size}x{size} images"):
    trained.load(changed(lambda noted: noted["preprocessing"].update(image_size=size)))


def test_a_mixer_takes_images_of_one_size(tmp_path):
  model = models.create("mixer_b16", num_classes=3, num_blocks=1, hidden_dim=8, tokens_mlp_dim=4, channels_mlp_dim=8)
  params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  weights.save(tmp_path / "x.safetensors", model, params, weights.Preprocessing((0.5,) * 3, (0.5,) * 3, image_size=64))
  with pytest.raises(UserError, match="parameters are for 4 patches, but images of 64x64"):
    trained.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("model_name", [None, "asmlp_tiny"])
@pytest.mark.parametrize(
  "options", [dict(shift_size=1023), dict(dilation=10**6), dict(shift_size=4), dict(padding="x")]
)
def test_shifts_that_take_forever_to_compile(tmp_path, model_name, options):
  model = models.create("asmlp_tiny", num_classes=3)
  if model_name is None:
    model = model.clone(hidden_dim=8, depths=(1, 1))
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
  weights.save(tmp_path / "x.safetensors", model.clone(**options), params)
  with pytest.raises(weights.WeightsError, match=f"{next(iter(options)).split('_')[0]}"):
    weights.load(tmp_path / "x.safetensors", model_name)


@pytest.mark.parametrize(("heads", "match"), [(4, None), (8, None), (3, "3 heads"), (256, "num_heads=256")])
def test_heads_do_not_show_in_the_arrays(tmp_path, heads, match):
  """The usual number for this width is 2."""
  model = models.create("vit_s16", num_classes=3, hidden_dim=128, num_blocks=1, num_heads=2)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
  weights.save(tmp_path / "x.safetensors", model.clone(num_heads=heads), params)
  if match is None:
    assert weights.load(tmp_path / "x.safetensors").module.num_heads == heads
  else:
    with pytest.raises(weights.WeightsError, match=match):
      weights.load(tmp_path / "x.safetensors")


def test_nothing_that_cannot_be_loaded_is_saved(tmp_path):
  model = models.create("s2mlp_wide", num_classes=1, num_blocks=1, hidden_dim=8)
  params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  with pytest.raises(weights.WeightsError, match="control characters"):
    weights.save(tmp_path / "x.safetensors", model, params, class_names=["\x1b[31m"])
  with pytest.raises(ValueError, match="crop_ratio=2"):
    weights.Preprocessing((0.5,) * 3, (0.5,) * 3, crop_ratio=2)
