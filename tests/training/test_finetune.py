"""Starting from given weights: what is taken over, what is new, and what is refused."""

import shutil

from flax.traverse_util import flatten_dict
import jax
import ml_collections
import numpy as np
import pytest

from mlpvision import models, weights
from mlpvision.checkpoints import load_variables
from mlpvision.errors import UserError
from mlpvision.training import loop, step as step_lib, warm_start
from mlpvision.training.setup import set_up

_MIXER = dict(name="mixer_b16", num_blocks=1, hidden_dim=16, tokens_mlp_dim=8, channels_mlp_dim=32, patch_size=4)
_VIT = dict(num_blocks=1, hidden_dim=128, num_heads=2, patch_size=4)


@pytest.fixture
def run_config(small_config):
  """make(image_size, init_from, **model): two steps on the digits."""

  def make(image_size, init_from="", **model):
    plain = dict(dtype="float32", drop_path=0.0, dropout=0.0, remat="none")
    small_config.model = ml_collections.ConfigDict({**plain, **model})
    small_config.data.update(image_size=image_size, batch_size=16, eval_split="test[:16]")
    small_config.optim.schedule.warmup = "1 step"
    small_config.update(duration="2 steps", init_from=init_from)
    return small_config.copy_and_resolve_references()

  return make


@pytest.fixture(scope="module")
def mixer_run(tmp_path_factory):
  """Filled by the first test that asks for it."""
  return tmp_path_factory.mktemp("mixer_run")


@pytest.fixture
def mixer(run_config, mixer_run):
  """The workdir of a Mixer that was trained for two steps at 28 pixels."""
  if not (mixer_run / "checkpoints").exists():
    loop.train_and_evaluate(run_config(28, **_MIXER), mixer_run)
  return mixer_run


@pytest.fixture
def vit_file(tmp_path):
  """A ViT for 28 pixels and 7 classes, as a file."""
  model = models.create("vit_b16", num_classes=7, **_VIT)
  params = jax.jit(model.init)(jax.random.key(5), np.zeros((1, 28, 28, 3), np.float32))["params"]
  preprocessing = weights.Preprocessing((0.5,) * 3, (0.5,) * 3, image_size=28)
  weights.save(tmp_path / "vit.safetensors", model, params, preprocessing)
  return str(tmp_path / "vit.safetensors"), flatten_dict(params, sep="/")


def _start(config):
  """(flat parameters of step 0, state, what read says, Setup)."""
  setup = set_up(config, warm=bool(config.init_from))
  given, text = None, ""
  if setup.source:
    names = setup.train_split.class_names
    given, text = warm_start.parameters(setup.config, setup.source, setup.abstract.params, names)
  state = step_lib.create_state(setup.init, setup.abstract, config.seed, given)
  return flatten_dict(jax.device_get(state.params), sep="/"), state, text, setup


def test_a_run_goes_on_at_twice_the_resolution(run_config, mixer):
  config = run_config(56, str(mixer), **{**_MIXER, "tokens_mlp_dim": 32})
  config.ema_decay = 0.9
  source = flatten_dict(load_variables(mixer)[0]["params"], sep="/")
  params, state, text, _ = _start(config)
  for path, array in params.items():
    if "/token_mixing/" not in path:
      np.testing.assert_array_equal(array, source[path], err_msg=path)  # the head too: the same ten digits
  grown, old = params["MixerBlock_0/token_mixing/Dense_0/kernel"], source["MixerBlock_0/token_mixing/Dense_0/kernel"]
  assert grown.shape == (4 * 49, 4 * 8)
  np.testing.assert_array_equal(grown[:7, :8], old[:7])  # the first part of the map, its first row
  np.testing.assert_array_equal(grown[:7, 8:], 0)
  jax.tree.map(np.testing.assert_array_equal, state.params, state.ema)
  assert int(state.step) == 0
  assert text.splitlines() == [
    f"starting from {mixer}, step 2: {len(source)} arrays; new: none",
    "adapted to 56 pixels: MixerBlock_0/token_mixing/Dense_0/bias and 3 more",
  ]


def test_another_number_of_classes_gets_a_new_head(run_config, vit_file):
  path, source = vit_file
  config = run_config(56, path, name="vit_b16", **_VIT)
  config.mesh.fsdp = 2
  params, state, text, setup = _start(config)
  config.init_from = ""
  fresh = _start(config)[0]
  for leaf, array in params.items():
    if leaf.startswith("head/"):
      np.testing.assert_array_equal(array, fresh[leaf], err_msg=leaf)
    elif leaf != "pos_embedding":
      np.testing.assert_array_equal(array, source[leaf], err_msg=leaf)
  assert params["pos_embedding"].shape == (1, 197, 128)
  np.testing.assert_array_equal(params["pos_embedding"][:, 0], source["pos_embedding"][:, 0])
  assert "new: head/bias, head/kernel\nadapted to 56 pixels: pos_embedding" in text
  wanted = jax.tree.map(lambda x: x.sharding, setup.abstract)
  assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, wanted))
  assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
  ("names", "kept", "said"),
  [
    ([str(i) for i in range(10)], True, ""),
    (
      [f"class {i}" for i in range(10)],
      False,
      "head of these weights is not used: its class 0 is 'class 0', ",
    ),
    ([str(i) for i in (1, 0, *range(2, 10))], False, "not used: its class 0 is '1', and '0' here"),
    (None, True, "note: these weights do not name the classes of their head, which is taken to be of the same classes"),
  ],
)
def test_as_many_classes_with_other_names(run_config, tmp_path, names, kept, said):
  model = models.create("mixer_b16", num_classes=10, **{k: v for k, v in _MIXER.items() if k != "name"})
  params = jax.jit(model.init)(jax.random.key(5), np.zeros((1, 28, 28, 3), np.float32))["params"]
  params["head"]["bias"] += 1
  weights.save(tmp_path / "w.safetensors", model, params, None, names)
  params, _, text, _ = _start(run_config(28, str(tmp_path / "w.safetensors"), **_MIXER))
  assert (params["head/bias"] == 1).all() == kept
  assert ("new: head/bias, head/kernel" in text) != kept
  assert said in text
  assert ("note: " in text) == bool(said)


def test_other_options_and_colours_are_pointed_out(run_config, mixer):
  config = run_config(28, str(mixer), **_MIXER, approximate_gelu=False)
  config.data.mean = (0.4, 0.4, 0.4)
  lines = _start(config)[2].splitlines()
  assert "note: model.approximate_gelu was True for these weights, and is False here" in lines
  assert any(line.startswith("note: data.mean was (0.5, 0.5, 0.5) for these weights") for line in lines)


@pytest.mark.parametrize(
  ("image_size", "model", "message"),
  [
    (
      28,
      {"hidden_dim": 24},
      r"MixerBlock_0/LayerNorm_0/bias: \(16,\) in the weights, \(24,\) in the model(?s:.*)and 2 more",
    ),
    (28, {"hidden_dim": 24}, r"would fit with --config.model.hidden_dim=16$"),
    (28, {"num_blocks": 2}, r"not in the weights(?s:.*)would fit with --config.model.num_blocks=1$"),
    (56, {}, r"would fit with --config.model.tokens_mlp_dim=32$"),
    (36, {}, r"data.image_size=36: .* cannot be adapted to"),
  ],
)
def test_what_does_not_fit_is_listed(run_config, mixer, image_size, model, message):
  config = run_config(image_size, str(mixer), **{**_MIXER, **model})
  with pytest.raises(UserError, match=message):
    _start(config)


def test_a_config_without_sizes_takes_the_weights(run_config, mixer, tmp_path, capsys):
  source = tmp_path / "source"
  shutil.copytree(mixer, source)
  config = run_config(56, str(source), name="mixer_b16")
  config.lock()
  result = loop.train_and_evaluate(config, tmp_path / "run")
  assert np.isfinite(result.metrics["val/loss"])
  said = capsys.readouterr().out
  assert f"starting from {source}, step 2" in said
  assert "model as in the weights: patch_size=4, num_blocks=1, hidden_dim=16, tokens_mlp_dim=32, channels_" in said
  assert "num_blocks" not in config.model
  variables, meta, _ = load_variables(tmp_path / "run")
  assert flatten_dict(variables["params"], sep="/")["MixerBlock_0/token_mixing/Dense_0/kernel"].shape == (4 * 49, 4 * 8)
  assert meta["config"]["model"]["tokens_mlp_dim"] == 32
  shutil.rmtree(source)  # the run's own checkpoint is enough to resume
  again = loop.train_and_evaluate(config, tmp_path / "run")
  assert again.metrics["val/loss"] == pytest.approx(result.metrics["val/loss"])
  said = capsys.readouterr().out
  assert "resuming from step 2\n" in said
  assert "starting from" not in said


def test_weights_of_another_family_are_refused(run_config, mixer):
  with pytest.raises(UserError, match="is a MlpMixer.*vit_b16 is a ViT: set --config.model.name=mixer_b16"):
    loop.train_and_evaluate(run_config(28, str(mixer), name="vit_b16", patch_size=4), mixer.parent / "refused")


def test_another_family_or_nothing_at_all(run_config, vit_file, tmp_path):
  with pytest.raises(UserError, match="is a ViT.*mixer_b16 is a MlpMixer"):
    _start(run_config(28, vit_file[0], **_MIXER))
  with pytest.raises(UserError, match=r"mixer_b16\.goog_in22k is not a run.*Did you mean mixer_b"):
    loop.train_and_evaluate(run_config(28, "mixer_b16.goog_in22k", **_MIXER), tmp_path / "run")
  (tmp_path / "nothing").mkdir()
  with pytest.raises(UserError, match=f"no checkpoint in {tmp_path}/nothing"):
    _start(run_config(28, str(tmp_path / "nothing"), **_MIXER))
  (tmp_path / "empty.npz").write_bytes(b"")
  with pytest.raises(UserError, match="is empty"):
    _start(run_config(28, str(tmp_path / "empty.npz"), **_MIXER))
