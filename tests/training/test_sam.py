"""Sharpness-aware minimization: the step that the paper has, however the work is split, and what it is for."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import ml_collections
import numpy as np
import optax
import pytest

from mlpvision import sharding, tasks
from mlpvision.models import layers
from mlpvision.training import sam, step as step_lib


@pytest.fixture
def config(small_config):
  small_config.augment.update(crop="center", flip=0.5)
  return small_config


class _Toy(nn.Module):
  """The mean color, a branch that is dropped at random and a linear layer: compiles soon."""

  num_classes: int
  norm: bool = False

  @nn.compact
  def __call__(self, images, *, train=False):
    x = images.mean(1).reshape(len(images), -1)
    if self.norm:
      x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
    drop_path = layers.drop_paths(lambda: self.make_rng("dropout"), [0.5 * train], len(x), branches=1)[0]
    x += drop_path(nn.Dense(x.shape[1])(x), 0)
    return nn.Dense(self.num_classes)(x)


def _toy(config, norm=True, devices=1):
  """(state, step, batch) on the first devices."""
  model, optimizer = _Toy(10, norm), optax.sgd(0.5)
  state = jax.jit(step_lib.Init(model, optimizer, 28, False))(jax.random.key(0))
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
  batch = sharding.put_batch(tasks.random_batch(config, 10), mesh)
  return state, jax.jit(step_lib.make_train_step(model, optimizer, config)), batch


def test_losses_do_not_depend_on_how_the_work_is_split(config):
  """With random flips and dropped branches: both passes see the same images, and drop the same branches."""
  config.optim.sam_rho, losses, params = 0.5, {}, {}
  for devices, config.accumulation_steps in ((1, 1), (8, 1), (8, 5)):
    state, step, batch = _toy(config, norm=False, devices=devices)
    split, found = f"{devices} devices, {config.accumulation_steps} parts", []
    for _ in range(3):
      state, metrics = step(state, batch)
      found.append(metrics["loss"].item())
    losses[split], params[split] = found, jax.device_get(state.params)
  expected, *others = losses
  for other in others:
    np.testing.assert_allclose(losses[other], losses[expected], rtol=1e-5, err_msg=other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params[other], params[expected])


def test_the_step_is_a_plain_step_at_the_ascended_parameters(config):
  state, plain, batch = _toy(config)
  at_w, reported = plain(state, batch)
  gradient = jax.tree.map(lambda new, old: (old - new) / 0.5, at_w.params, state.params)
  config.optim.sam_rho = 0.3
  norm = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(gradient)))
  above = state.replace(params=jax.tree.map(lambda w, g: w + 0.3 / norm * g, state.params, gradient))
  there, second = plain(above, batch)
  found, metrics = _toy(config)[1](state, batch)
  expected = jax.tree.map(lambda w, high, new: w - (high - new), state.params, above.params, there.params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.params, expected)
  assert not np.allclose(found.params["Dense_1"]["kernel"], at_w.params["Dense_1"]["kernel"], atol=1e-4)
  # The first pass is reported and updates the statistics; the norm is of the gradient that updates.
  np.testing.assert_allclose(metrics["loss"], reported["loss"], rtol=1e-5)
  assert second["loss"] > reported["loss"]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found.stats, at_w.stats)
  np.testing.assert_allclose(metrics["grad_norm"], second["grad_norm"], rtol=1e-4)


def test_without_it_the_step_has_one_backward_pass_and_the_same_state(config):
  counts = []
  for rho in (0.0, 0.1):
    config.optim.sam_rho = rho
    state, step, batch = _toy(config)
    counts.append(step.lower(state, batch).as_text().count("stablehlo.dot_general"))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), jax.eval_shape(step, state, batch)[0])
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), state)
  assert counts[1] == 2 * counts[0] > 0


def test_frozen_parameters_and_zero_gradients_stay():
  config = ml_collections.ConfigDict({"sam_rho": 2.0, "lr_multipliers": (("^stem", 0.0),)})
  params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
  found = sam.ascended(params, {"stem": jnp.full(2, 7.0), "head": jnp.array([3.0, 4.0])}, config)
  np.testing.assert_allclose(found["head"], [1 + 2 * 3 / 5, 1 + 2 * 4 / 5], rtol=1e-6)
  np.testing.assert_array_equal(found["stem"], params["stem"])
  jax.tree.map(np.testing.assert_array_equal, sam.ascended(params, optax.tree.zeros_like(params), config), params)


def test_it_leaves_a_sharp_minimum_for_a_flat_one():
  """Two minima of equal depth, one a hundred times as sharp: descent from beside the sharp one stays, SAM leaves."""

  def loss(w):
    return jnp.minimum(50 * w["x"] ** 2, 0.5 * (w["x"] - 2) ** 2)

  @jax.jit
  def minimum(rho):
    config = ml_collections.FrozenConfigDict({"sam_rho": 1.0, "lr_multipliers": ()})

    def descend(_, w):
      ascent = jax.tree.map(lambda a, b: a + rho * (b - a), w, sam.ascended(w, jax.grad(loss)(w), config))
      return jax.tree.map(lambda w, g: w - 0.005 * g, w, jax.grad(loss)(ascent))

    return jax.lax.fori_loop(0, 3000, descend, {"x": jnp.float32(0.1)})["x"]

  sharpness = jax.grad(jax.grad(lambda x: loss({"x": x})))
  assert float(sharpness(minimum(0.0))) == pytest.approx(100)
  assert float(sharpness(minimum(0.5))) == pytest.approx(1)
