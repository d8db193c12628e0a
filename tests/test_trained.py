"""Runs of others: what a checkpoint says of its model, images and classes is checked before a model is built."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from configs import quickstart
from mlpvision import config as config_lib, tasks, trained
from mlpvision.checkpoints import Checkpoints
from mlpvision.errors import UserError
from mlpvision.training.step import TrainState

# {what is wrong: (change of the meta, the message)}
WRONG = {
  "num_blocks": (lambda m: m["config"]["model"].update(num_blocks=10**9), "1000000000 is not possible"),
  "more blocks": (
    lambda m: m["config"]["model"].update(num_blocks=2),
    "num_blocks=2, but its arrays are of num_blocks=1",
  ),
  "wider MLPs": (lambda m: m["config"]["model"].update(mlp_ratio=3.0), "do not fit s2mlp_wide, as block_0"),
  "fewer channels": (lambda m: m["config"]["model"].update(hidden_dim=4), "hidden_dim=4, but"),
  "text for a number": (lambda m: m["config"]["model"].update(hidden_dim="8"), "hidden_dim=8 is not possible"),
  "mlp_ratio": (lambda m: m["config"]["model"].update(mlp_ratio=float("nan")), "mlp_ratio=nan"),
  "directions": (lambda m: m["config"]["model"].update(directions={"a": 1}), "directions"),
  "drop_path": (lambda m: m["config"]["model"].update(drop_path="x"), "step [0-9]+ is not usable"),
  "dtype": (lambda m: m["config"]["model"].update(dtype=["float32"]), "dtype"),
  "unknown option": (lambda m: m["config"]["model"].update(foo=1), "no option 'foo'"),
  "parent": (lambda m: m["config"]["model"].update(parent=1), "parent"),
  "unknown model": (lambda m: m["config"]["model"].update(name="resnet"), "unknown model 'resnet'"),
  "model": (lambda m: m["config"].update(model=3), "is not usable"),
  "task": (lambda m: m["config"].update(task="detect"), "task='detect'"),
  "loss": (lambda m: m["config"].update(loss="hinge"), "loss='hinge'"),
  "no config": (lambda m: m.update(config=None), "is not usable"),
  "config": (lambda m: m.update(config=[1]), "is not usable"),
  "image_size": (lambda m: m["config"]["data"].update(image_size=10**9), "image_size=1000000000"),
  "no image": (lambda m: m["config"]["data"].update(image_size=0), "image_size=0"),
  "odd image": (lambda m: m["config"]["data"].update(image_size=30), "cannot take 30x30"),
  "mean": (lambda m: m["config"]["data"].update(mean=[0.5, float("nan"), 0.5]), "mean="),
  "std": (lambda m: m["config"]["data"].update(std=[0.5, 0.5]), "std="),
  "crop_ratio": (lambda m: m["config"]["eval"].update(crop_ratio=1e-9), "crop_ratio=1e-09"),
  "interpolation": (lambda m: m["config"]["eval"].update(interpolation="lanczos"), "interpolation='lanczos'"),
  "fewer classes": (lambda m: m.update(class_names=["a"]), "do not fit"),
  "no classes": (lambda m: m.update(class_names=[]), "do not fit"),
  "classes": (lambda m: m.update(class_names={"a": 1}), "class names"),
  "numbers as classes": (lambda m: m.update(class_names=[1, 2, 3]), "class names"),
  "endless text as a class": (lambda m: m.update(class_names=["a", "b", "c" * 10**6]), "class names"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A workdir with an intact checkpoint, and one for each thing that is wrong."""
  config = quickstart.get_config()
  config.model.update(num_blocks=1, hidden_dim=8)
  model = tasks.make_model(config, 3)
  params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32))["params"]
  state = TrainState(jnp.zeros((), jnp.int32), params, None, {"count": jnp.zeros(())})
  workdir = tmp_path_factory.mktemp("runs")
  meta = {"config": config_lib.to_json(config), "class_names": ["a", "b", "c"]}
  checkpoints = Checkpoints(workdir, keep=100)
  checkpoints.save(0, state, meta)
  checkpoints.save(1000, state, meta | {"class_names": ["a", "b", "\x1b[31m"]})
  for step, (change, _) in enumerate(WRONG.values(), start=1):
    changed = copy.deepcopy(meta)
    change(changed)
    checkpoints.save(step, state, changed)
  checkpoints.close()
  return workdir / "checkpoints"


def test_an_intact_run_loads(run):
  found = trained.load(run / "0")
  assert found.class_names == ("a", "b", "c")
  found.predict(Image.new("RGB", (40, 50)))
  assert trained.load(run / "1000").class_names[2] == "\x1b[31m"  # a folder can have this name


@pytest.mark.parametrize("wrong", WRONG)
def test_a_run_that_is_not_what_it_says(run, wrong):
  with pytest.raises(UserError, match=WRONG[wrong][1]) as error:
    trained.load(run / str(1 + list(WRONG).index(wrong)))
  assert str(error.value).startswith(str(run))
  assert str(error.value).isprintable()
  assert len(str(error.value)) < 2000
