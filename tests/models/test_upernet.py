"""UperNet against mmsegmentation's outputs, statistics and gradients; parameters and MACs against AS-MLP's table."""

import pathlib

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart_segmentation
from mlpvision import models, tasks, weights
from mlpvision.models import cost
from mlpvision.models.batch_norm import BatchNorm
from mlpvision.models.heads import interpolation, upernet
from mlpvision.tasks import segmentation
from mlpvision.weights import files

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "data" / "upernet.npz"))
_OF_MAPS = ("feature", "grad_feature", "eval_logits", "eval_aux", "train_logits", "train_aux")
GOLDEN |= {name: GOLDEN[name].transpose(0, 2, 3, 1) for name in GOLDEN if name.startswith(_OF_MAPS)}
_MAPS = [jnp.asarray(GOLDEN[f"feature_{i}"]) for i in range(4)]
_HEADS = {
  "decode_head": upernet.UPerHead(7, 12, dropout=0.0),
  "auxiliary_head": upernet.FCNHead(7, 9, dropout=0.0),
}


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
  """{head: variables}, read from the original's names."""
  path = tmp_path_factory.mktemp("upernet") / "heads.safetensors"
  arrays = {name: array for name, array in GOLDEN.items() if name.startswith(tuple(_HEADS))}
  files.write(path, arrays)
  found = {}
  for name, array in files.WeightFile(path)._arrays.items():
    ours, transform = upernet.TABLE.ours(name)
    head, _, rest = ours.partition("/")
    collection = "batch_stats" if rest.endswith(("/mean", "/var")) else "params"
    found.setdefault(head, {}).setdefault(collection, {})[rest] = transform(array.numpy())
  return {
    head: {name: jax.tree.map(jnp.asarray, unflatten_dict(flat, sep="/")) for name, flat in collections.items()}
    for head, collections in found.items()
  }


def _equal(found, golden, tolerance=1e-5):
  assert np.abs(np.asarray(found) - golden).max() <= tolerance * np.abs(golden).max()


def test_logits_and_the_map_at_the_original_size(variables):
  logits = jax.jit(_HEADS["decode_head"].apply)(variables["decode_head"], _MAPS)
  _equal(logits, GOLDEN["eval_logits"])
  _equal(jax.jit(_HEADS["auxiliary_head"].apply)(variables["auxiliary_head"], _MAPS[2]), GOLDEN["eval_aux_logits"])
  of_label = interpolation.bilinear(logits, GOLDEN["label"].shape[1:])
  original = interpolation.bilinear(of_label, tuple(GOLDEN["original_size"]))
  _equal(original[:, ::7, ::7], GOLDEN["eval_logits_original_size_sample"])
  assert (original.argmax(-1) != GOLDEN["eval_argmax_original_size"]).sum() <= 3


def test_losses_gradients_and_statistics_of_a_training_step(variables):
  config, label = quickstart_segmentation.get_config(), jnp.asarray(GOLDEN["label"])
  targets = {"label": label, "weight": (label != 255) * label.size / (label != 255).sum()}

  def loss(params, maps):
    outputs, stats = {}, {}
    for name, head in _HEADS.items():
      of_head = {"params": params[name], "batch_stats": variables[name]["batch_stats"]}
      inputs = maps if name == "decode_head" else maps[2]
      outputs[name], stats[name] = head.apply(of_head, inputs, True, mutable=["batch_stats"])
    outputs = tuple(outputs[name] for name in _HEADS)
    value, means = segmentation.loss(outputs, targets, config)
    return value, (means, outputs, stats)

  params = {name: variables[name]["params"] for name in _HEADS}
  (_, (means, outputs, stats)), (by_params, by_maps) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
    params, _MAPS
  )
  _equal(outputs[0], GOLDEN["train_logits"])
  _equal(outputs[1], GOLDEN["train_aux_logits"])
  assert means["loss_decode"] == pytest.approx(GOLDEN["train_loss_decode"], rel=1e-5)
  assert means["loss_auxiliary"] == pytest.approx(GOLDEN["train_loss_aux_weighted"], rel=1e-5)
  for i, gradient in enumerate(by_maps):
    _equal(gradient, GOLDEN[f"grad_feature_{i}"], 1e-4)
  flat = flatten_dict(by_params, sep="/")
  checked = [name for name in GOLDEN if name.startswith("grad_decode_head")]
  for name in checked:
    path, _ = upernet.TABLE.ours(name.removeprefix("grad_"))
    of_file = upernet.TABLE.theirs(path)[1]
    _equal(of_file(flat[path]), GOLDEN[name], 1e-4)
  assert len(checked) == 4
  running = stats["decode_head"]["batch_stats"]["fpn_bottleneck"]["bn"]
  _equal(running["mean"], GOLDEN["new_running_mean_fpn_bottleneck"])
  _equal(running["var"], GOLDEN["new_running_var_fpn_bottleneck"])


def test_the_canvas_around_an_image_changes_nothing(variables):
  """Padding of any content, in each map."""
  sizes = tuple(jnp.array([x.shape[1:3]] * 2) for x in _MAPS)
  canvases = [jnp.pad(x, ((0, 0), (0, 3 + i), (0, 5 - i), (0, 0)), constant_values=9.0) for i, x in enumerate(_MAPS)]
  head = jax.jit(_HEADS["decode_head"].apply, static_argnums=2)
  found = head(variables["decode_head"], canvases, False, sizes)
  _equal(found[:, :19, :26], GOLDEN["eval_logits"])


@pytest.mark.parametrize("shape", [(38, 52), (76, 26), (57, 130), (8, 11), (19, 26)])
def test_resizing_equals_jax_image(shape):
  x = _MAPS[0]
  expected = jax.image.resize(x, (2, *shape, x.shape[-1]), "bilinear", antialias=False)
  np.testing.assert_allclose(interpolation.bilinear(x, shape), expected, atol=2e-5)


def test_batch_norm_leaves_masked_positions_out():
  x = jax.random.normal(jax.random.key(0), (6, 3))
  norm, mask = BatchNorm(), jnp.array([True, True, False, True, False, True])
  variables = norm.init(jax.random.key(0), x)
  found, stats = norm.apply(variables, x, True, mask, mutable=["batch_stats"])
  expected, own = norm.apply(variables, x[mask], True, mutable=["batch_stats"])
  np.testing.assert_allclose(found[mask], expected, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stats, own)


@pytest.mark.parametrize(
  ("backbone", "parameters", "gmacs"),
  [
    ("asmlp_tiny", 59_936_204, 937.2),
    pytest.param("asmlp_small", 81_248_204, 1024.5, marks=pytest.mark.slow),
    pytest.param("asmlp_base", 121_264_300, 1166.1, marks=pytest.mark.slow),
  ],
)
def test_parameters_and_macs_of_the_paper(backbone, parameters, gmacs):
  """At 512x2048 with 150 classes; parameters include the auxiliary head, and MACs do not."""
  model = models.create("upernet", backbone=backbone, num_classes=150)
  images = jax.ShapeDtypeStruct((1, 512, 2048, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  assert sum(x.size for x in jax.tree.leaves(variables["params"])) == parameters
  traced = jax.make_jaxpr(model.apply)(variables, images)
  assert cost.macs(cost.products(traced.jaxpr)) == pytest.approx(gmacs * 1e9, rel=5e-3)


_SMALL = {
  "asmlp_tiny": dict(hidden_dim=8, depths=(1, 1, 1, 1)),
  "swin_tiny": dict(hidden_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), window_size=4),
  "vit_s16": dict(hidden_dim=32, num_blocks=1, num_heads=2),
}


@pytest.mark.parametrize("backbone", _SMALL)
def test_weights_in_mmsegmentations_names_round_trip(backbone, tmp_path):
  sizes = dict(channels=12, auxiliary_channels=9, **_SMALL[backbone])
  model = models.create("upernet", backbone=backbone, num_classes=7, **sizes)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), dict(shapes))
  stats = {"batch_stats": variables["batch_stats"]}
  path = tmp_path / "segmenter.safetensors"
  weights.save(path, model, variables["params"], stats=stats)
  names = files.WeightFile(path).names
  assert {"backbone.norm3.weight", "decode_head.psp_modules.2.1.bn.running_var"} < set(names)
  loaded = weights.load(path)
  assert loaded.module == model
  before, after = flatten_dict(variables), flatten_dict(loaded.variables)
  assert before.keys() == after.keys()
  assert all(np.array_equal(before[key], after[key]) for key in before)
  assert tasks.name_of(loaded.module) == "segmentation"

  other = weights.load(path, num_classes=3)
  assert other.info.head == "new"
  assert other.params["decode_head"]["conv_seg"]["kernel"].shape == (12, 3)
  assert np.array_equal(other.params["pyramid"]["norm0"]["scale"], variables["params"]["pyramid"]["norm0"]["scale"])


def test_a_file_without_an_array_is_refused_with_its_name(tmp_path):
  model = models.create("upernet", backbone="asmlp_tiny", num_classes=7, channels=12, **_SMALL["asmlp_tiny"])
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  variables = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), dict(shapes))
  del variables["params"]["decode_head"]["fpn_convs_1"]["conv"]
  path = tmp_path / "segmenter.safetensors"
  weights.save(path, model, variables["params"], stats={"batch_stats": variables["batch_stats"]})
  with pytest.raises(weights.WeightsError, match="fpn_convs_1/conv/kernel: missing"):
    weights.load(path)


def test_mistakes_are_named():
  for options, message in (
    (dict(), "needs a backbone"),
    (dict(backbone="asmlp_tinny"), "did you mean asmlp_tiny"),
    (dict(backbone="asmlp_tiny", window_size=7), "no option 'window_size'"),
    (dict(backbone="mixer_h14"), "stride 14"),
  ):
    with pytest.raises(ValueError, match=message):
      models.create("upernet", num_classes=3, **options)
