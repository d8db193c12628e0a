"""The step benchmark and the end-to-end one, on a small model; and that a model's products are all of them."""

import importlib.util
import json

from conftest import SMALL
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models
from mlpvision.benchmark import own_step
from mlpvision.models import cost

_TORCH = importlib.util.find_spec("torch") is not None


def test_step_is_measured(here, tmp_path):
  path = tmp_path / "result.json"
  options = ("--batch_size=4", "--rounds=1", f"--json={path}")
  code, output = here("-m", "mlpvision.benchmark", "step", *SMALL, *options)
  assert code == 0, output
  ours = json.loads(path.read_text())["ours"]
  names = {"forward", "forward products", "train", "train products", "own"}
  assert set(ours["cpu_seconds"]) == set(ours["seconds"]) == names
  assert min(ours["seconds"].values()) > 0
  facts = ours["facts"]
  assert facts["dtype"] == "float32"
  assert facts["loss"] == pytest.approx(np.log(own_step.NUM_CLASSES), rel=0.1)
  assert facts["product_flops"]["forward"] == 4 * 2 * facts["macs"]
  for row in (
    "forward, ours",
    "train, ours",
    "the config's own step",
    "of this ceiling",
    "s2mlp_wide: 4 images of 28 x 28",
  ):
    assert row in output


def test_plain_is_a_copy():
  from configs import mixer_b16

  config = mixer_b16.get_config()
  before = config.to_json()
  plain = own_step.plain(config)
  assert config.to_json() == before
  assert (plain.augment.mixup, plain.model.drop_path, plain.loss) == (0, 0, "softmax")
  assert (config.augment.mixup, config.model.drop_path, config.loss) == (0.5, 0.1, "sigmoid")


@pytest.mark.skipif(_TORCH, reason="PyTorch is installed")
def test_what_peers_need_is_said(here):
  code, output = here("-m", "mlpvision.benchmark", "step", *SMALL, "--peers")
  assert code == 2
  assert "mlpvision[torch]" in output


@pytest.mark.slow
@pytest.mark.soak
def test_training_is_measured(command, tmp_path):
  path = tmp_path / "result.json"
  short = ("--batch_size=4", "--rounds=1", "--seconds=0.1", f"--json={path}")
  code, output = command("-m", "mlpvision.benchmark", "train", *SMALL, *short)
  assert code == 0, output
  result = json.loads(path.read_text())
  (synthetic,), (real,) = result["synthetic"], result["real"]
  assert synthetic["images"] == synthetic["loaded"] >= 8
  assert real["loaded"] > real["images"] >= 8
  assert 0 <= real["waited"] < real["wall"]
  assert "data wait" in output
  assert "in the loader" in output
  code, output = command("-m", "mlpvision.benchmark", "train", *SMALL, "--batch_size=5", "--config.augment.mixup=0.2")
  assert code == 2
  assert "batch_size=5" in output


_SMALL_MODELS = {
  "mixer_s16": dict(num_blocks=1, hidden_dim=24, tokens_mlp_dim=12, channels_mlp_dim=48),
  "resmlp_s12": dict(num_blocks=1, hidden_dim=24),
  "s2mlp_wide": dict(num_blocks=1, hidden_dim=24),
  "asmlp_tiny": dict(hidden_dim=12, depths=(1, 1)),
}


@pytest.mark.parametrize("name", _SMALL_MODELS)
def test_plain_flax_computes_the_same(name):
  from benchmarks import plain_flax

  model = models.create(name, num_classes=3, **_SMALL_MODELS[name])
  images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
  params = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape) / 2, params)
  expected, found = (m.apply({"params": params}, images) for m in (model, plain_flax.create(model)))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", _SMALL_MODELS)
def test_all_products_are_there(name):
  """In training three for each one of the forward pass, but for the stem, whose images need no gradient."""
  model = models.create(name, **_SMALL_MODELS[name])
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]

  def total(params, images):
    return model.apply({"params": params}, images, train=True).sum()

  forward = 2 * cost.macs(own_step.products(total, params, images))
  assert forward == 2 * 2 * cost.count(model, 64)["macs"]
  kernel = params["stem"]["kernel"].shape
  stem = 2 * 2 * (64 // kernel[0]) ** 2 * np.prod(kernel)
  assert 2 * cost.macs(own_step.products(jax.grad(total), params, images)) == 3 * forward - stem


def test_products_of_this_platform_count():
  def total(x):
    return jax.lax.platform_dependent(x, x, cpu=lambda a, b: a @ b, default=lambda a, b: (a @ b) @ b)

  found = own_step.products(total, jax.ShapeDtypeStruct((4, 4), jnp.float32))
  assert 2 * cost.macs(found) == 2 * 4 * 4 * 4


def test_products_compute():
  """An einsum with a batch dimension, twice."""
  left, right = jax.ShapeDtypeStruct((3, 4, 5), jnp.float32), jax.ShapeDtypeStruct((3, 5, 6), jnp.float32)
  found = own_step.products(lambda a, b: (a @ b, jax.lax.scan(lambda c, _: (c, a @ b), 0.0, length=2)), left, right)
  assert sum(found.values()) == 3
  assert 2 * cost.macs(found) == 3 * 2 * 3 * 4 * 5 * 6
  own_step.make_call(found)()
