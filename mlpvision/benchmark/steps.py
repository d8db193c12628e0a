"""This project's steps, as calls of a worker: the real ones, compiled as training compiles them."""

from collections.abc import Callable, Mapping
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from mlpvision import augment, commands, sharding
from mlpvision.benchmark import products
from mlpvision.errors import UserError
from mlpvision.models import cost
from mlpvision.training import setup as setup_lib, state as state_lib

NUM_CLASSES = 1000
# ImageNet's, for schedules that count epochs.
_NUM_IMAGES = 1_281_167


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


def batch(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """A batch of random images and labels, as the loader gives them."""
  rng, rows, size = np.random.default_rng(0), config.data.batch_size, config.data.image_size
  return {
    "image": rng.integers(0, 256, (rows, size, size, 3), np.uint8),
    "label": rng.integers(0, NUM_CLASSES, rows, np.int32),
    "mask": np.ones(rows, np.bool_),
    "replaced": np.zeros(rows, np.bool_),
  }


class Step:
  """A train step and the state that it works on. Calling it does one step and waits for it."""

  def __init__(self, config: ml_collections.ConfigDict) -> None:
    images = dict(num_images=_NUM_IMAGES, num_classes=NUM_CLASSES)
    self.setup = setup_lib.make_parts(config, **images, devices=jax.devices()[:1])
    self.compiled, self.compile_seconds = setup_lib.compile_step(self.setup)
    self.state = state_lib.create(self.setup.init, self.setup.abstract, config.seed)
    self.batch = sharding.put_batch(batch(config), self.setup.mesh)

  def __call__(self) -> dict[str, jax.Array]:
    self.state, metrics = self.compiled(self.state, self.batch)
    return jax.block_until_ready(metrics)


def make(
  config: Mapping[str, Any], directory: str | os.PathLike
) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
  """(facts, calls) for a `workers.Worker`; leaves the parameters for others in directory/params.npz.

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
    "forward": products.collect(forward, step.state.params, step.batch["image"]),
    "train": products.collect(jax.grad(train), step.state.params, step.batch["image"]),
  }
  own = Step(config)
  calls = {
    "forward": lambda: jax.block_until_ready(compiled_forward(step.state.params, step.batch["image"])),
    "forward products": products.make_call(found["forward"]),
    "train": step,
    "train products": products.make_call(found["train"]),
    "own": own,
  }
  facts = {
    "platform": device.platform,
    "device": device.device_kind,
    "dtype": config.model.dtype,
    "loss": loss,
    "macs": cost.count(model, config.data.image_size)["macs"],
    "product_flops": {name: products.flops(counted) for name, counted in found.items()},
    "compile_seconds": {"train": step.compile_seconds, "own": own.compile_seconds},
    "memory": {
      name: _memory(compiled)
      for name, compiled in (("forward", compiled_forward), ("train", step.compiled), ("own", own.compiled))
    },
  }
  return facts, calls


def _memory(compiled):
  """Bytes at the peak, by the compiler's analysis; None where it gives none."""
  memory = compiled.memory_analysis()
  if memory is None:
    return None
  held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
  return held + memory.temp_size_in_bytes
