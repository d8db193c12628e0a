"""Every config: complete, and its recipe, one of each kind in two real steps, fits a small model and the digits."""

import functools
import importlib
import pathlib
import re

from families import FAMILIES
import jax
import ml_collections
import numpy as np
import pytest

from mlpvision import config as config_lib, durations, tasks, weights
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
  "cyclemlp_b1": "",
  "ff_base": "",
  "finetune": "mixer_b16.goog_in21k",
  "gmlp_s16": "",
  "mixer_b16": "",
  "mixer_b16_finetune": "mixer_b16.goog_in21k",
  "mixer_b16_gmlp": "",
  "mixer_b16_in21k": "",
  "mixer_b16_sam": "",
  "poolformer_s12": "",
  "resmlp_s12": "",
  "s2mlp_deep": "",
  "s2mlp_wide": "",
  "s2mlpv2_small7": "",
  "swin_tiny": "",
  **{f"cascade_mask_rcnn_asmlp_{size}": f"asmlp_{size}.official" for size in ("tiny", "small", "base")},
  **{f"mask_rcnn_asmlp_{size}": f"asmlp_{size}.official" for size in ("tiny", "small")},
  "upernet_asmlp_base": "asmlp_base.official",
  "upernet_asmlp_small": "asmlp_small.official",
  "upernet_asmlp_tiny": "asmlp_tiny.official",
  "upernet_finetune": "asmlp_tiny.official",
  "vip_s7": "",
  "vit_b16": "",
  "vit_b16_384": "deit_base_patch16_224.fb_in1k",
}
# These differ from another in a few fields alone.
_SIZE, _SEGMENTER = ["model.drop_path", "model.name"], ["init_from", "model.backbone"]
_LIKE = {
  "cyclemlp_b1": ("ff_base", ["model.name"]),
  "finetune": ("mixer_b16_finetune", ["model.tokens_mlp_dim"]),
  "mixer_b16_in21k": ("mixer_b16", ["augment.mixup", "augment.randaugment", "data.name", "model.head_bias_init"]),
  "s2mlp_deep": ("s2mlp_wide", ["model.affine_init", "model.name"]),
  "asmlp_small": ("asmlp_base", _SIZE),
  "asmlp_tiny": ("asmlp_base", _SIZE),
  "quickstart_distillation": (
    "quickstart",
    ["distill.teacher", "distill.temperature", "model.hidden_dim", "model.num_blocks"],
  ),
  "upernet_asmlp_small": ("upernet_asmlp_tiny", _SEGMENTER),
  "upernet_asmlp_base": ("upernet_asmlp_tiny", _SEGMENTER),
  "mask_rcnn_asmlp_small": ("mask_rcnn_asmlp_tiny", _SEGMENTER),
  "cascade_mask_rcnn_asmlp_small": ("cascade_mask_rcnn_asmlp_tiny", _SEGMENTER),
  "cascade_mask_rcnn_asmlp_base": ("cascade_mask_rcnn_asmlp_tiny", [*_SEGMENTER, "model.drop_path"]),
}
# One of each kind is trained, of the others the step is traced. Of quickstarts, the notebooks are, and many tests.
_QUICKSTARTS = [name for name in _NAMES if name.startswith("quickstart")]
_TRAINED = "s2mlp_wide", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mixer_b16_finetune", "resmlp_s12"))
# One of each family, small; plain stacks with patches of 16 pixels.
SMALL_MODELS = {name: dict(next(iter(row.small.values()))) for name, row in FAMILIES.items()}
for _options in SMALL_MODELS.values():
  if "patch_size" in _options:
    _options["patch_size"] = 16
SMALL_MODELS["vip"]["transitions"] = (1,)  # where its width changes, in all variants


def _config(name):
  return importlib.import_module(f"configs.{name}").get_config()


def test_all_configs_are_covered():
  assert _QUICKSTARTS == ["quickstart", *(f"quickstart_{x}" for x in ("detection", "distillation", "segmentation"))]
  assert _NAMES == sorted((*_RECIPES, *_QUICKSTARTS))


@pytest.mark.parametrize("name", _LIKE)
def test_these_recipes_differ_in_a_few_fields_alone(name):
  other, expected = _LIKE[name]
  configs = (config_lib.to_json(_config(which)) for which in (other, name))
  fields = [line.partition(":")[0] for line in config_lib.differences(*configs)]
  assert fields == expected


def _small(name):
  """The recipe for a small model, the digits and two steps."""
  config = _config(name)
  with config.unlocked():
    if config.task == "segmentation":
      config.model.update(depths=(1, 1, 1, 1), hidden_dim=8, channels=8, auxiliary_channels=8)
      config.data.update(name="digit_scenes", image_size=64, workers=0)
    elif config.task == "detection":
      config.model.update(depths=(1, 1, 1, 1), hidden_dim=8, channels=8, head_dim=16, roi_samples=16)
      config.data.update(name="digit_scenes", canvas=(64, 64), scale=(64, 64), max_objects=8, workers=0)
      config.augment.short_sides = (64,)
    else:
      config.model.update(SMALL_MODELS[config.model.name.split("_")[0]])
      config.data.update(name="mnist5k", eval_split="test[:16]", image_size=32, workers=0)
    config.init_from = ""
    config.data.update(batch_size=16, eval_split="test[:16]" if config.task == "classification" else "test")
    config.duration = "2 steps"
    config.optim.schedule.warmup = "1 step"
    config.log_every = "1 step"
  return config


@pytest.mark.parametrize("name", [name for name in _RECIPES if name not in (*_LIKE, "s2mlp_wide")])
def test_a_step_can_be_built(name, scenes):
  setup = setup_lib.set_up(_small(name))
  spec = tasks.batch_specs(setup.config)[0]
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
  assert f"{config.data.name} is not in" in message or f"{config.data.name}: there is no directory" in message
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
    ("data.reads", 0),
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


_NAN, _INF = float("nan"), float("inf")
_NO_NUMBER = (True, None, "1", _NAN, _INF, -_INF, 10**400, (1,), {})
_NO_INTEGER = (*_NO_NUMBER, 1.0, 1.5)
_NO_TEXT = (True, None, 1, 0.5, _NAN, ("a",), {})
_NO_NAME = (*_NO_TEXT, "")
_NO_STEPS = (
  *_NO_NAME,
  "10",
  "steps",
  "1 parsec",
  "-1 steps",
  "nan steps",
  "1e3 steps",
  "1 minute",
  f"{'9' * 400} steps",
)
_NO_INTERVAL = (*_NO_STEPS, "0 steps", "0.0 epochs")
_NO_CHOICE = (*_NO_NAME, "none of them")
_NO_COUNT = (*_NO_INTEGER, 0, -1)
_NO_SHARE = (*_NO_NUMBER, -0.1, 1.0)
_NO_PROBABILITY = (*_NO_NUMBER, -0.1, 1.1)
_NO_AXIS = (*_NO_INTEGER, 0, -2)
_NO_TUPLE = (True, None, 0.5, "ab", "abc", (), (0.5,), (0.5,) * 4, {})
_NO_CHANNELS = (*_NO_TUPLE, (0.5, 0.5), (0.5, 0.5, _NAN), (0.5, 0.5, "0.5"), (0.5, 0.5, True))
_NO_RANGE = (
  *_NO_TUPLE,
  (1.0, 0.5),
  (0, 1),
  (-1, 1),
  (0.5, _INF),
  (_NAN, 1.0),
  (0.5, "1"),
  (0.5, True),
  (0.5, 0.6, 0.7),
)
_NO_FLAG = (None, 0, 1, 0.0, "True", (True,), {})
_NO_PAIRS = (True, None, 1, "kernel$", ("kernel$",), (("kernel$",),), ((1, 1.0),), (("kernel$", 1.0, 1.0),), ("a", "b"))
# Values that no run can use, for every field of default.py.
_WRONG = {
  "init_from": _NO_TEXT,
  "task": _NO_CHOICE,
  "seed": (*_NO_INTEGER, -1, 2**32),
  "duration": _NO_INTERVAL,
  "loss": _NO_NAME,
  "label_smoothing": _NO_SHARE,
  "auxiliary_loss": (*_NO_NUMBER, -1.0),
  "ema_decay": _NO_SHARE,
  "accumulation_steps": (*_NO_COUNT, 7),
  "model.name": _NO_NAME,
  "model.dtype": (*_NO_CHOICE, "float64"),
  "model.drop_path": _NO_SHARE,
  "model.dropout": _NO_SHARE,
  "model.remat": (*_NO_CHOICE, "all"),
  "data.name": _NO_NAME,
  "data.data_dir": (True, 1, ("a",), {}),
  "data.train_split": _NO_NAME,
  "data.eval_split": _NO_NAME,
  "data.classes": _NO_TEXT,
  "data.reduce_zero_label": _NO_FLAG,
  "data.scale": (*_NO_TUPLE, (0, 512), (2048, _INF), (2048, "512"), (20000, 512)),
  "data.canvas": (*_NO_TUPLE, (800,), (800, 1340), (0, 1344), (800.0, 1344), (800, 8192)),
  "data.max_objects": (*_NO_COUNT, 1001),
  "data.image_size": _NO_COUNT,
  "data.batch_size": _NO_COUNT,
  "data.mean": (*_NO_CHANNELS, (123.7, 116.3, 103.5), (-0.1, 0.5, 0.5)),
  "data.std": (*_NO_CHANNELS, (58.4, 57.1, 57.4), (0.0, 0.5, 0.5), (-0.1, 0.5, 0.5)),
  "data.workers": (*_NO_INTEGER, -2),
  "data.reads": (*_NO_INTEGER, -2, 0, 65537),
  "data.prefetch": _NO_COUNT,
  "augment.short_sides": (*_NO_TUPLE, (), (0,), (800.0,), (480, 5000)),
  "augment.crop_probability": (*_NO_NUMBER, -0.1, 1.1),
  "augment.crop_short_sides": (*_NO_TUPLE, (), (0,), (400.0,), (400, 5000)),
  "augment.crop_sides": (*_NO_TUPLE, (384,), (600, 384), (0, 600), (384.0, 600.0)),
  "augment.crop": _NO_CHOICE,
  "augment.crop_scale": (*_NO_RANGE, (0.5, 1.1)),
  "augment.crop_ratio": _NO_RANGE,
  "augment.rotation": (*_NO_NUMBER, -1.0, 181.0),
  "augment.zoom": _NO_SHARE,
  "augment.shift": (*_NO_NUMBER, -1.0),
  "augment.randaugment": (*_NO_TEXT, "rand-m99"),
  "augment.resize_ratio": (*_NO_RANGE, (0.01, 1.0), (1.0, 100.0)),
  "augment.cat_max_ratio": (*_NO_NUMBER, 0.0, 1.1),
  "augment.photometric": _NO_FLAG,
  "augment.repeats": (*_NO_COUNT, 1000),
  "augment.flip": _NO_PROBABILITY,
  "augment.random_erasing": _NO_PROBABILITY,
  "augment.mixup": (*_NO_NUMBER, -0.1),
  "augment.cutmix": (*_NO_NUMBER, -0.1),
  "distill.teacher": _NO_TEXT,
  "distill.loss": _NO_CHOICE,
  "distill.temperature": (*_NO_NUMBER, 0.0, -1.0),
  "optim.name": _NO_NAME,
  "optim.kwargs.b1": (*_NO_NUMBER[2:6], -0.1, 1.0),
  "optim.kwargs.b2": (*_NO_NUMBER[2:6], -0.1, 1.0),
  "optim.kwargs.eps": (*_NO_NUMBER[2:6], -1e-8),
  "optim.kwargs.momentum": (*_NO_NUMBER[2:6], -0.1, 1.0),
  "optim.kwargs.other": (_NAN, _INF),
  "optim.learning_rate": (*_NO_NUMBER, 0.0, -1.0),
  "optim.weight_decay": (*_NO_NUMBER, -0.1),
  "optim.decay_mask": _NO_TEXT,
  "optim.clip_norm": (*_NO_NUMBER, -1.0),
  "optim.lr_multipliers": (*_NO_PAIRS, (("kernel$", -1.0),), (("kernel$", _NAN),), (("kernel$", "1"),)),
  "optim.sam_rho": (*_NO_NUMBER, -0.1),
  "optim.layer_decay": (*_NO_NUMBER, 0.0, 1.1),
  "optim.nonfinite": _NO_CHOICE,
  "optim.schedule.name": _NO_CHOICE,
  "optim.schedule.warmup": _NO_STEPS,
  "optim.schedule.start": (*_NO_NUMBER, -1e-6),
  "optim.schedule.end": (*_NO_NUMBER, -1e-6),
  "optim.schedule.clock": _NO_CHOICE,
  "optim.schedule.every": _NO_INTERVAL,
  "optim.schedule.delay": _NO_STEPS,
  "optim.schedule.milestones": (None, 1, "8 epochs", (8,), ("0 epochs",), ("8 hours",)),
  "optim.schedule.factor": (*_NO_NUMBER, 0.0, 1.1),
  "eval.every": _NO_INTERVAL,
  "eval.batch_size": _NO_COUNT,
  "eval.crop_ratio": (*_NO_NUMBER, 0.0, 1.1),
  "eval.interpolation": (*_NO_CHOICE, "area"),
  "eval.mode": _NO_CHOICE,
  "eval.stride": (*_NO_TUPLE, (0, 341), (341, 1.5), (341, True)),
  "eval.scales": (True, None, 0.5, "ab", (), (0.0,), (1.0, "1"), (1.0, _NAN), (10.0,), {}),
  "eval.flip": _NO_FLAG,
  "checkpoint.every": tuple(value for value in _NO_INTERVAL if value != "1 minute"),
  "checkpoint.keep": _NO_COUNT,
  "checkpoint.best": _NO_TEXT,
  "mesh.data": _NO_AXIS,
  "mesh.fsdp": _NO_AXIS,
  "mesh.model": _NO_AXIS,
  "mesh.shard_update": _NO_FLAG,
  "mesh.rules": (*_NO_PAIRS[:-2], (("kernel$", "data"),)),
  "hang_timeout": (*_NO_NAME, "30", "0 minutes", "-1 minutes", "10 steps", "a while"),
  "profile": (*_NO_TEXT, "20:10", "0:10", "10", "a:b", "-1:3"),
  "log_every": _NO_INTERVAL,
  "reporting.writers": (True, None, 1, "tensorboard", ("tensorflow",), ("wandb", "wandb"), (1,), {}),
  "print_every": (*_NO_TEXT, "30", "0 seconds", "-1 seconds", "10 steps", "a while"),
}
for _name, _field in (("val", ""), ("calibration", ""), ("fewshot", "train_split")):
  _WRONG |= {f"evals.{_name}.{_field}": _NO_TEXT[:-1] for _field in ("name", "split", _field) if _field}
  _WRONG[f"evals.{_name}.type"] = (*_NO_TEXT[:-1], "")
  _WRONG[f"evals.{_name}.every"] = tuple(value for value in _NO_INTERVAL if value not in ("", {}))
_WRONG["evals.fewshot.shots"] = (True, None, 5, "5", (), (0.5,), (-1,), (True,), ("5",), (_NAN,))


def _with(field, value):
  """The default config with a value that it would not take on its own."""
  tree = _config("default").to_dict()
  *groups, name = field.split(".")
  functools.reduce(lambda tree, key: tree[key], groups, tree)[name] = value
  return ml_collections.ConfigDict(tree)


def test_every_field_has_values_that_are_wrong():
  fields = {field for field in _WRONG if not field.startswith("optim.kwargs.")}
  assert fields == set(_leaves(_config("default")))


@pytest.mark.parametrize("field", _WRONG)
def test_wrong_values_are_refused_by_name(field):
  for value in _WRONG[field]:
    with pytest.raises(UserError) as error:
      config_lib.check(_with(field, value), dataset=False)
    message = str(error.value)
    assert message.startswith(field), f"{field}={value!r}: {message}"
    assert "\n" not in message


def test_all_problems_are_named_at_once():
  config = _config("default")
  config.seed, config.data.batch_size, config.hang_timeout = -1, 0, "0 minutes"
  del config.augment.randaugment
  with pytest.raises(UserError) as error:
    config_lib.check(config, dataset=False)
  fields = ("seed=-1", "data.batch_size=0", "hang_timeout='0 minutes'", "augment.randaugment: is missing")
  assert all(field in str(error.value) for field in fields)


@pytest.mark.parametrize("name", ["default", *_NAMES])
def test_values_of_configs_are_accepted(name):
  config_lib.check(_config(name), dataset=False)


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
  config.data.workers, config.data.reads = 3, 100
  config.mesh.fsdp = 4
  config.eval.batch_size = 9
  assert config_lib.differences(old, config_lib.to_json(config)) == [
    "model.directions: 'four' -> 'none'",
    "optim.learning_rate: 0.002 -> 0.0005",
  ]


def test_finetune_has_two_recipes_for_two_sizes():
  finetune = importlib.import_module("configs.finetune")
  assert [finetune.get_config(name).optim.name for name in ("sgd", "adamw")] == ["sgd", "adamw"]
  for name, optimizer, rate in (("small", "sgd", 0.003), ("small_adamw", "adamw", 1e-4)):
    config = finetune.get_config(name)
    assert (config.optim.name, config.optim.learning_rate) == (optimizer, rate)
    lengths = [durations.to_steps(config[field], field=field, batch_size=config.data.batch_size, num_images=315)
               for field in ("duration", "log_every")]  # fmt: skip
    assert lengths == [197, 5]
    assert config.data.batch_size / config.accumulation_steps == 4  # at a time, as a laptop has memory for
  with pytest.raises(ValueError, match="'sgd', 'adamw', 'small' or 'small_adamw'"):
    finetune.get_config("adam")
