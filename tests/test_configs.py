"""Every config: complete, and its recipe, one of each kind in two real steps, fits a small model and the digits."""

import importlib
import pathlib
import re

from families import FAMILIES
import jax
import ml_collections
import numpy as np
import pytest

from mlpvision import config as config_lib, tasks, weights
from mlpvision.errors import UserError
from mlpvision.training import loop, setup as setup_lib
from mlpvision.training.step import make_train_step

_FOLDER = pathlib.Path(__file__).parent.parent / "configs"
_NAMES = sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem not in ("default", "recipes"))
_RECIPES = {  # and the models that they start from
  "asmlp_base": "",
  "asmlp_base_384": "runs/asmlp_base",
  "asmlp_small": "",
  "asmlp_tiny": "",
  "ff_base": "",
  "finetune": "mixer_b16.goog_in21k",
  "mixer_b16": "",
  "mixer_b16_finetune": "mixer_b16.goog_in21k",
  "mixer_b16_in21k": "",
  "resmlp_s12": "",
  "s2mlp_deep": "",
  "s2mlp_wide": "",
  "swin_tiny": "",
  "vit_b16": "",
  "vit_b16_384": "deit_base_patch16_224.fb_in1k",
}
# These differ from another in the model's name and drop path alone.
_LIKE = {"asmlp_small": "asmlp_base", "asmlp_tiny": "asmlp_base"}
# One of each recipe is trained, of the others the step is traced.
_TRAINED = ("asmlp_base", "mixer_b16", "mixer_b16_finetune", "quickstart", "resmlp_s12", "s2mlp_wide")
# One of each family, small; plain stacks with patches of 16 pixels.
SMALL_MODELS = {name: dict(next(iter(row.small.values()))) for name, row in FAMILIES.items()}
for _options in SMALL_MODELS.values():
  if "patch_size" in _options:
    _options["patch_size"] = 16


def _config(name):
  return importlib.import_module(f"configs.{name}").get_config()


def test_all_configs_are_covered():
  assert _NAMES == sorted((*_RECIPES, "quickstart"))


@pytest.mark.parametrize("name", _LIKE)
def test_sizes_of_one_model_have_one_recipe(name):
  configs = (config_lib.to_json(_config(which)) for which in (_LIKE[name], name))
  fields = [line.partition(":")[0] for line in config_lib.differences(*configs)]
  assert fields == ["model.drop_path", "model.name"]


def _small(name):
  """The recipe for a small model, the digits and two steps."""
  config = _config(name)
  with config.unlocked():
    if name != "quickstart":
      config.model.update(SMALL_MODELS[config.model.name.split("_")[0]])
      config.data.update(name="mnist5k", eval_split="test[:16]", image_size=32, workers=0)
    else:
      config.model.num_blocks = 2
    config.init_from = ""
    config.data.update(batch_size=16, eval_split="test[:16]")
    config.duration = "2 steps"
    config.optim.schedule.warmup = "1 step"
    config.log_every = "1 step"
  return config


@pytest.mark.parametrize("name", [name for name in _NAMES if name not in (*_LIKE, *_TRAINED)])
def test_a_step_can_be_built(name):
  setup = setup_lib.set_up(_small(name))
  spec = tasks.batch_spec(setup.config)
  batch = {key: jax.ShapeDtypeStruct((16, *shape), dtype) for key, (shape, dtype) in spec.items()}
  step = make_train_step(setup.model, setup.optimizer, setup.config)
  state, metrics = jax.eval_shape(step, setup.abstract, batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), setup.abstract)
  assert metrics["loss"].shape == ()


@pytest.mark.parametrize("name", _TRAINED)
def test_two_steps(name, tmp_path):
  config = _small(name)
  result = loop.train_and_evaluate(config, tmp_path)
  assert result.finished
  assert result.step == 2
  assert np.isfinite(result.metrics["val/loss"])


@pytest.mark.parametrize("name", _RECIPES)
def test_a_recipe_names_what_is_missing(name, tmp_path):
  config = _config(name)
  config.data.data_dir = str(tmp_path)
  with pytest.raises(UserError) as error:
    config_lib.check(config)
  message = str(error.value)
  assert f"{config.data.name} is not in" in message
  assert "augment" not in message  # everything that the recipes name is there


@pytest.mark.parametrize("name", _RECIPES)
def test_what_a_recipe_starts_from_can_be_had(name):
  source = _config(name).init_from
  assert source == _RECIPES[name]
  assert not source or source in weights.KNOWN or source.removeprefix("runs/") in _RECIPES


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("optim.learning_rate", 0.0),
    ("optim.weight_decay", -0.1),
    ("optim.clip_norm", -1.0),
    ("optim.schedule.start", -1e-6),
    ("optim.schedule.end", -1e-6),
    ("model.drop_path", 1.0),
    ("model.dropout", -0.5),
    ("label_smoothing", 1.0),
    ("ema_decay", 1.0),
    ("data.image_size", 0),
    ("data.batch_size", 0),
    ("data.workers", -2),
    ("data.prefetch", 0),
    ("augment.repeats", 0),
    ("augment.mixup", -0.1),
    ("augment.flip", 1.5),
    ("augment.crop", "resized"),
    ("augment.randaugment", "rand-m99"),
    ("checkpoint.keep", 0),
    ("eval.batch_size", 0),
    ("eval.crop_ratio", 1.1),
    ("eval.interpolation", "area"),
    ("model.remat", "all"),
    ("optim.layer_decay", 0.0),
    ("optim.nonfinite", "ignore"),
    ("hang_timeout", "a while"),
    ("profile", "20:10"),
    ("profile", "0:10"),
    ("accumulation_steps", 0),
    ("accumulation_steps", 7),
  ],
)
def test_values_out_of_range_are_named(field, value):
  config = _config("quickstart")
  config.update_from_flattened_dict({field: value})
  with pytest.raises(UserError, match=re.escape(field)) as error:
    config_lib.check(config)
  assert str(value) in str(error.value)


def test_every_field_is_explained():
  """default.py has a comment above every field and every group."""
  lines = (_FOLDER / "default.py").read_text().splitlines()
  fields = [i for i, line in enumerate(lines) if line.strip().startswith("config.") and "=" in line]
  assert len(fields) > 40
  explained = False
  for i in range(min(fields), max(fields) + 1):
    if i in fields:
      group = "ConfigDict()" in lines[i]
      assert explained or group or lines[i - 1].strip(), f"default.py:{i + 1} has no comment: {lines[i]}"
    explained = lines[i].strip().startswith("#")


def _leaves(tree, prefix=""):
  for key, value in tree.items():
    yield from _leaves(value, f"{prefix}{key}.") if isinstance(value, ml_collections.ConfigDict) else [f"{prefix}{key}"]


@pytest.mark.parametrize("name", _NAMES)
def test_configs_use_no_fields_of_their_own(name):
  """Only options of models and optimizers may go beyond default.py; all else would be ignored."""
  extra = set(_leaves(_config(name))) - set(_leaves(_config("default")))
  assert all(field.startswith(("model.", "optim.kwargs.")) for field in extra)


def test_no_field_hides_a_method():
  """A field such as "update" could not be set on the command line."""
  names = {part for field in _leaves(_config("default")) for part in field.split(".")}
  assert not names & set(dir(ml_collections.ConfigDict))


def test_differences_are_readable_and_leave_out_what_may_change():
  config = _config("quickstart")
  old = config_lib.to_json(config)
  config.optim.learning_rate = 5e-4
  config.model.directions = "none"
  config.data.workers = 3
  config.mesh.fsdp = 4
  config.eval.batch_size = 9
  assert config_lib.differences(old, config_lib.to_json(config)) == [
    "model.directions: 'four' -> 'none'",
    "optim.learning_rate: 0.002 -> 0.0005",
  ]


def test_finetune_has_two_recipes():
  finetune = importlib.import_module("configs.finetune")
  assert [finetune.get_config(name).optim.name for name in ("sgd", "adamw")] == ["sgd", "adamw"]
  with pytest.raises(ValueError, match="'sgd' or 'adamw'"):
    finetune.get_config("adam")
