"""Schedules and optimizers against the formulas they stand for."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlpvision.errors import UserError
from mlpvision.training import optim

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


@pytest.mark.parametrize("t", [10, 35, 60, 110])
def test_clock_from_zero_is_timms(t):
  """timm evaluates the cosine at the absolute step: the rate falls a little when the warm-up ends."""
  expected = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * t / 110)) / 2
  np.testing.assert_allclose(optim.make_schedule("cosine", **_ALL, clock="zero")(t), expected, rtol=1e-5)


def test_swins_rate_right_after_the_warmup():
  """20 of 300 epochs: min + (max - min) * 0.989, as the official scheduler gives."""
  schedule = optim.make_schedule("cosine", peak=1e-3, warmup_steps=20, total_steps=300, end=1e-5, clock="zero")
  assert abs((schedule(20) - 1e-5) / (1e-3 - 1e-5) - 0.989) < 5e-4


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


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lamb", "lion"])
def test_names_of_optax(name):
  optimizer = optim.make_optimizer(name, lambda step: 0.1)
  params = {"kernel": jnp.ones((2, 2))}
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  assert (updates["kernel"] < 0).all()


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
    (lambda: optim.make_optimizer("sgd", None, weight_decay=0.1), "no weight decay"),
    (lambda: optim.make_optimizer("sgd", None, kwargs={"b3": 1}), "optim.kwargs.b3"),
    (lambda: optim.make_schedule("cosin", peak=1, warmup_steps=0, total_steps=1), "schedule.name"),
    (lambda: optim.make_schedule("cosine", peak=1, warmup_steps=0, total_steps=1, clock="noon"), "clock"),
    (lambda: optim.make_schedule("cosine", peak=1, warmup_steps=9, total_steps=5), "warm-up of 9 steps"),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(UserError, match=message):
    call()
