"""This project's step as a contender: the real one, compiled as training compiles it."""

import collections
from collections.abc import Callable, Mapping
import os
import pathlib
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from mlpvision import augment, commands, sharding, tasks
from mlpvision.errors import UserError
from mlpvision.models import cost
from mlpvision.prepare import archives
from mlpvision.training import setup as setup_lib, step as step_lib

NUM_CLASSES = 1000
# A turn is one call, or as many as fit into this many seconds.
_TURN = 0.3


def plain(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A copy of the config with the step that both sides can take: softmax cross-entropy and AdamW; no augmentation, no
  dropping, no average."""
  config = ml_collections.ConfigDict(config).copy_and_resolve_references()
  config.update(loss="softmax", label_smoothing=0.0, ema_decay=0.0, accumulation_steps=1)
  config.model.update(drop_path=0.0, dropout=0.0)
  del config.model.remat  # the models' default is none
  config.augment.update(flip=0.0, random_erasing=0.0, mixup=0.0, cutmix=0.0)
  config.optim.update(name="adamw", learning_rate=1e-4, clip_norm=0.0, nonfinite="stop")
  config.optim.kwargs = ml_collections.ConfigDict()
  config.optim.schedule.update(name="constant", warmup="0 steps")
  return config


def use_float32_on_cpu(config: ml_collections.ConfigDict) -> None:
  """Sets the model's dtype where JAX runs on CPU, which only emulates bfloat16."""
  if jax.devices()[0].platform == "cpu":
    config.model.dtype = "float32"


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UserError where the batch cannot be divided as the config's step does."""
  rows, parts = config.data.batch_size, config.accumulation_steps
  if rows % (2 * parts):
    raise UserError(
      f"--batch_size={rows}: mixup and cutmix pair images, and each step has {parts} accumulation"
      f" step{'s' if parts > 1 else ''}: take a multiple of {2 * parts}"
    )


class Step:
  """A train step and the state that it works on. Calling it does one step and waits for it."""

  def __init__(self, config: ml_collections.ConfigDict) -> None:
    # ImageNet's, for schedules that count epochs.
    images = dict(num_images=archives.RELEASES["imagenet2012"].splits["train"], num_classes=NUM_CLASSES)
    self.setup = setup_lib.make_parts(config, **images, devices=jax.devices()[:1])
    self.compiled, self.compile_seconds = setup_lib.compile_step(self.setup)
    self.state = step_lib.create_state(self.setup.init, self.setup.abstract, config.seed)
    self.batch = sharding.put_batch(tasks.random_batch(config, NUM_CLASSES), self.setup.mesh)

  def __call__(self) -> dict[str, jax.Array]:
    self.state, metrics = self.compiled(self.state, self.batch)
    return jax.block_until_ready(metrics)


def make(
  config: Mapping[str, Any], directory: str | os.PathLike
) -> tuple[dict[str, Any], Callable[[str], tuple[float, float]]]:
  """(facts, turn) for a `Contender`; leaves the parameters for others in directory/params.npz.

  Args:
    config: the whole config, as a dict; data.batch_size images per step.
    directory: where to write.
  """
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is for all contenders
  commands.keep_freed_memory()  # as all commands do
  config, device = ml_collections.ConfigDict(config), jax.devices()[0]
  use_float32_on_cpu(config)
  step = Step(plain(config))
  params, model = step.state.params, step.setup.model
  leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
  flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
  np.savez(pathlib.Path(directory, "params.npz"), **flat)
  loss = float(step()["loss"])  # before any update

  def forward(params, images):
    images = augment.normalize(images, config.data.mean, config.data.std)
    return model.apply({"params": params}, images)

  def train(params, images):
    images = augment.normalize(images, config.data.mean, config.data.std)
    return model.apply({"params": params}, images, train=True).sum()

  compiled_forward = jax.jit(forward).lower(step.state.params, step.batch["image"]).compile()
  found = {
    "forward": products(forward, step.state.params, step.batch["image"]),
    "train": products(jax.grad(train), step.state.params, step.batch["image"]),
  }
  own = Step(config)
  calls = {
    "forward": lambda: jax.block_until_ready(compiled_forward(step.state.params, step.batch["image"])),
    "forward products": make_call(found["forward"]),
    "train": step,
    "train products": make_call(found["train"]),
    "own": own,
  }
  facts = {
    "platform": device.platform,
    "device": device.device_kind,
    "dtype": config.model.dtype,
    "loss": loss,
    "macs": cost.count(model, config.data.image_size)["macs"],
    "product_flops": {name: 2 * cost.macs(counted) for name, counted in found.items()},
    "compile_seconds": {"train": step.compile_seconds, "own": own.compile_seconds},
    "memory": {
      name: (sizes := cost.memory(compiled)) and cost.allocated(sizes)
      for name, compiled in (("forward", compiled_forward), ("train", step.compiled), ("own", own.compiled))
    },
  }
  return serve(facts, calls)


def products(function: Callable[..., Any], *arguments: Any) -> collections.Counter:
  """`cost.products` of function(*arguments) on this platform.

  Alone, they are what a step would cost if shifts, norms, activations and the update cost nothing: XLA's own ceiling.
  """
  return cost.products(jax.make_jaxpr(function)(*arguments).jaxpr, jax.default_backend())


def make_call(counted: Mapping[Any, int]) -> Callable[[], None]:
  """A function without arguments that computes `products` one after the other, each by a program of its own."""
  calls = []
  for i, ((left, right, dtype, dimensions), times) in enumerate(sorted(counted.items(), key=repr)):
    keys = jax.random.split(jax.random.key(i))
    operands = [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, (left, right), strict=True)]
    product = jax.jit(lambda a, b, dimensions=dimensions: jax.lax.dot_general(a, b, dimensions))
    calls.append((product, operands, times))

  def call():
    for product, operands, times in calls:
      for _ in range(times):
        product(*operands).block_until_ready()

  return call


def serve(
  facts: Mapping[str, Any], calls: Mapping[str, Callable[[], Any]]
) -> tuple[dict[str, Any], Callable[[str], tuple[float, float]]]:
  """(facts, turn) for a `Contender`, after each call was made twice; facts["calls"] has their names.

  A turn repeats the call of that name for a moment: (CPU seconds of all threads, seconds) of the fastest.

  Args:
    facts: what the parent should know.
    calls: functions without arguments that return when their work is done.
  """
  for call in calls.values():
    call()
    call()

  def turn(name):
    cpu, wall, started = [], [], time.perf_counter()
    while not wall or time.perf_counter() - started < _TURN:
      cpu_before, wall_before = time.process_time(), time.perf_counter()
      calls[name]()
      cpu.append(time.process_time() - cpu_before)
      wall.append(time.perf_counter() - wall_before)
    return min(cpu), min(wall)

  return {**facts, "calls": tuple(calls)}, turn
