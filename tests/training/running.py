"""Some steps on random batches, for tests of what a step computes."""

import functools
import json

import jax
import ml_collections
import numpy as np

from mlpvision import config as config_lib, sharding, tasks
from mlpvision.training import setup as setup_lib, step as step_lib


def run(config, steps):
  """(loss of each step, final state): the batches depend on the step alone, the state on the config."""
  setup, compiled = prepare(config)
  state = step_lib.create_state(setup.init, setup.abstract, config.seed)
  losses = []
  for i in range(steps):
    batch = sharding.put_batch(tasks.random_batch(config, 10, seed=i), setup.mesh)
    state, metrics = compiled(state, batch)
    losses.append(metrics["loss"])
  return np.array(jax.device_get(losses)), state


def prepare(config):
  """(Setup, its compiled step): one compilation for each config."""
  return _prepare(json.dumps(config_lib.to_json(config)))


@functools.cache
def _prepare(text):
  setup = setup_lib.set_up(ml_collections.ConfigDict(json.loads(text)))
  return setup, setup_lib.compile_step(setup)[0]
