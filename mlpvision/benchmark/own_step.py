"""The train step that benchmarks measure: the real one, compiled as in training."""

import collections
from collections.abc import Callable, Mapping
import os
import pathlib
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from mlpvision import augment, sharding, tasks
from mlpvision.models import cost
from mlpvision.prepare import archives
from mlpvision.training import setup as setup_lib, step as step_lib

NUM_CLASSES = 1000
_TURN = 0.3  # seconds of a turn, if a call takes less


def plain(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A copy of the config that PyTorch can match: softmax cross-entropy and AdamW, without augmentation, dropout, drop
  path and EMA."""
  config = ml_collections.ConfigDict(config).copy_and_resolve_references()
  config.unlock()
  config.update(loss="softmax", label_smoothing=0.0, ema_decay=0.0, accumulation_steps=1)
  config.distill.teacher = ""
  config.model.update(drop_path=0.0, dropout=0.0)
  del config.model.remat
  config.augment.update(flip=0.0, random_erasing=0.0, mixup=0.0, cutmix=0.0)
  config.optim.update(name="adamw", learning_rate=1e-4, clip_norm=0.0, nonfinite="stop")
  config.optim.kwargs = ml_collections.ConfigDict()
  config.optim.schedule.update(name="constant", warmup="0 steps")
  return config


def use_float32_on_cpu(config: ml_collections.ConfigDict) -> None:
  """Sets the model's dtype if JAX runs on CPU, which only emulates bfloat16."""
  if jax.devices()[0].platform == "cpu":
    config.model.dtype = "float32"


class Step:
  """A train step with its state. Calling it runs one step and waits for the result."""

  def __init__(self, config: ml_collections.ConfigDict) -> None:
    # ImageNet's sizes, for schedules in epochs.
    images = dict(num_images=archives.RELEASES["imagenet2012"].splits["train"], num_classes=NUM_CLASSES)
    self.setup = setup_lib.make_parts(config, **images, devices=jax.devices()[:1])
    self.compiled, self.compile_seconds = setup_lib.compile_step(self.setup)
    self.state = step_lib.create_state(self.setup.init, self.setup.abstract, config.seed)
    self.batch = sharding.put_batch(tasks.random_batch(config, NUM_CLASSES), self.setup.mesh)
    self.of_teacher = [self.setup.teacher.placed()] if self.setup.teacher else []

  def __call__(self) -> dict[str, jax.Array]:
    self.state, metrics = self.compiled(self.state, self.batch, *self.of_teacher)
    return jax.block_until_ready(metrics)


def make(
  config: ml_collections.ConfigDict, directory: str | os.PathLike
) -> tuple[dict[str, Any], Callable[[str], tuple[float, float]]]:
  """(facts, turn) as `serve` returns them; saves the initial parameters in directory/params.npz, for PyTorch.

  Args:
    config: the whole config, with data.batch_size images per step.
    directory: an existing directory.
  """
  device = jax.devices()[0]
  own, step = Step(config), Step(plain(config))
  params, model, images = step.state.params, step.setup.model, step.batch["image"]
  leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
  flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
  np.savez(pathlib.Path(directory, "params.npz"), **flat)
  loss = float(step()["loss"])  # before any update

  def forward(params, images, **options):
    return model.apply({"params": params}, augment.normalize(images, config.data.mean, config.data.std), **options)

  backward = jax.grad(lambda params, images: forward(params, images, train=True).sum())
  compiled_forward = jax.jit(forward).lower(step.state.params, images).compile()
  found = {
    "forward": products(forward, step.state.params, images),
    "train": products(backward, step.state.params, images),
  }
  calls = {
    "forward": lambda: jax.block_until_ready(compiled_forward(step.state.params, images)),
    "forward products": make_call(found["forward"]),
    "train": step,
    "train products": make_call(found["train"]),
    "own": own,
  }
  programs = {"forward": compiled_forward, "train": step.compiled, "own": own.compiled}
  memory = {name: cost.memory(compiled) for name, compiled in programs.items()}
  facts = {
    "platform": device.platform,
    "device": device.device_kind,
    "dtype": config.model.dtype,
    "loss": loss,
    "macs": cost.count(model, config.data.image_size)["macs"],
    "product_flops": {name: 2 * cost.macs(counted) for name, counted in found.items()},
    "compile_seconds": {"train": step.compile_seconds, "own": own.compile_seconds},
    "memory": {name: sizes and cost.allocated(sizes) for name, sizes in memory.items()},
  }
  return serve(facts, calls)


def products(function: Callable[..., Any], *arguments: Any) -> collections.Counter:
  """`cost.products` of function(*arguments) on this platform; their time alone is the lower bound of a step's."""
  return cost.products(jax.make_jaxpr(function)(*arguments).jaxpr, jax.default_backend())


def make_call(counted: Mapping[Any, int]) -> Callable[[], None]:
  """A function without arguments that computes `products` one after the other, each in its own program."""
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
  """(facts with the names of the calls, turn), after every call has run twice.

  turn(name) repeats a call and returns the CPU seconds of all threads, and the seconds, of the fastest one.

  Args:
    facts: what is reported about these calls.
    calls: {name: function that returns when its work is done}.
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
