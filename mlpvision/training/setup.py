"""From a config to everything that training needs, checked, with nothing computed on a device yet."""

from collections.abc import Mapping, Sequence
import dataclasses
import time
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import ml_collections
import optax

from mlpvision import config as config_lib, models, sharding
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.training import losses, optim, rates, state as state_lib
from mlpvision.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Parts:
  """The parts of a run that are known without its images: all that its step is compiled from.

  every: the steps between evaluations, few-shot evaluations, checkpoints and logged metrics; no "checkpoint" where
    save_seconds counts, no "fewshot" where there is none.
  save_seconds: the seconds between checkpoints, or None.
  """

  config: Any
  mesh: jax.sharding.Mesh
  model: Any
  optimizer: Any
  schedule: Any
  init: Any  # (key, given parameters) -> TrainState
  abstract: Any  # the state's shapes and shardings
  total_steps: int
  steps_per_epoch: float
  every: dict[str, int]
  save_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Setup(Parts):
  """All parts of a run."""

  train_split: datasets.Split
  eval_split: datasets.Split


def set_up(config: ml_collections.ConfigDict) -> Setup:
  """Builds a `Setup` for the devices that JAX has.

  Raises:
    UserError: a dataset, mesh, batch size, duration, optimizer or model that does not work.
  """
  data = config.data
  train_split = datasets.open_split(data.name, data.train_split, data.data_dir)
  eval_split = datasets.open_split(data.name, data.eval_split, data.data_dir)
  _check_classes(train_split, eval_split)
  parts = make_parts(config, num_images=len(train_split), num_classes=len(train_split.class_names))
  return Setup(**vars(parts), train_split=train_split, eval_split=eval_split)


def make_parts(
  config: ml_collections.ConfigDict, *, num_images: int, num_classes: int, devices: Sequence[Any] | None = None
) -> Parts:
  """Builds the `Parts` of a run on num_images training images of num_classes classes.

  Args:
    config: as configs/default.py describes it.
    num_images, num_classes: of the training split.
    devices: the devices of the mesh, or their descriptions; default: all that JAX has.

  Raises:
    UserError: a mesh, batch size, duration, optimizer or model that does not work.
  """
  data = config.data
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model, devices=devices)
  _check_batch(config, sharding.batch_parts(mesh))

  counts = dict(batch_size=data.batch_size, num_images=num_images)
  total_steps = config_lib.to_steps(config.duration, field="duration", **counts)
  if not total_steps:
    raise UserError(
      f"duration={config.duration!r} is not even one step: the training split has {num_images:,} images, a step takes"
      f" {data.batch_size:,}. Train longer, or take a smaller data.batch_size"
    )
  intervals = {"eval": config.eval.every, "log": config.log_every}
  if config.fewshot.every:
    intervals["fewshot"] = config.fewshot.every
  save_seconds = config_lib.to_seconds(config.checkpoint.every)
  if save_seconds is None:
    intervals["checkpoint"] = config.checkpoint.every
  every = {name: max(1, config_lib.to_steps(value, field=f"{name} interval", **counts))
           for name, value in intervals.items()}  # fmt: skip

  optimizer, schedule = make_optimizer(config.optim, total_steps, counts)
  model = make_model(config.model, num_classes)
  init = state_lib.make_init(model, optimizer, image_size=data.image_size, ema=config.ema_decay > 0)
  if config.loss not in losses.LOSSES:
    raise UserError(f"loss={config.loss!r}: one of {', '.join(losses.LOSSES)}")
  try:
    abstract = state_lib.abstract_state(init, mesh, config.mesh.rules)
  except ValueError as error:
    raise UserError(f"model {config.model.name} with data.image_size={data.image_size}: {error}") from error
  rates.factors(abstract.params, config.optim.rates, config.optim.layer_decay)  # refuses what matches nothing
  return Parts(
    config, mesh, model, optimizer, schedule, init, abstract, total_steps, num_images / data.batch_size, every,
    save_seconds,
  )  # fmt: skip


def make_model(options: Mapping[str, Any], num_classes: int | None) -> nn.Module:
  """The module that config.model describes.

  Raises:
    UserError: unknown model, option or dtype.
  """
  options = dict(options)
  name, dtype = options.pop("name"), options.pop("dtype")
  if dtype not in ("float32", "bfloat16"):
    raise UserError(f"model.dtype={dtype!r}: 'float32' or 'bfloat16'")
  try:
    return models.create(name, num_classes=num_classes, dtype=jnp.dtype(dtype), **options)
  except ValueError as error:
    raise UserError(f"model: {error}") from error


def make_optimizer(
  config: ml_collections.ConfigDict, total_steps: int, counts: Mapping[str, int]
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """(optimizer, schedule) that config.optim describes; counts as `config_lib.to_steps` takes them."""
  steps = {
    f"{name}_steps": config_lib.to_steps(config.schedule[name], field=f"optim.schedule.{name}", **counts)
    for name in ("warmup", "every", "delay")
  }
  schedule = optim.make_schedule(
    config.schedule.name,
    peak=config.learning_rate,
    total_steps=total_steps,
    **steps,
    start=config.schedule.start,
    end=config.schedule.end,
    clock=config.schedule.clock,
  )
  decay = dict(weight_decay=config.weight_decay, clip_norm=config.clip_norm)
  skip = config.nonfinite == "skip"
  optimizer = optim.make_optimizer(config.name, schedule, **decay, kwargs=config.kwargs, skip_nonfinite=skip)
  return rates.scaled(optimizer, config.rates, config.layer_decay), schedule


def lower_step(parts: Parts) -> jax.stages.Lowered:
  """The train step of `Parts`, lowered for the devices of its mesh; it takes over the state's buffers.

  Compile it with `compiler_options(parts.mesh)`.
  """
  size, batch_size = parts.config.data.image_size, parts.config.data.batch_size
  rows = NamedSharding(parts.mesh, sharding.BATCH)
  batch = {
    "image": jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8, sharding=rows),
    "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=rows),
    "mask": jax.ShapeDtypeStruct((batch_size,), jnp.bool_, sharding=rows),
    "replaced": jax.ShapeDtypeStruct((batch_size,), jnp.bool_, sharding=rows),
  }
  step = make_train_step(parts.model, parts.optimizer, parts.config)
  shardings = jax.tree.map(lambda x: x.sharding, parts.abstract)
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None)).lower(parts.abstract, batch)


def compile_step(parts: Parts) -> tuple[jax.stages.Compiled, float]:
  """(the compiled train step, seconds that took)."""
  started = time.perf_counter()
  compiled = lower_step(parts).compile(compiler_options=compiler_options(parts.mesh))
  return compiled, time.perf_counter() - started


def compiler_options(mesh: jax.sharding.Mesh) -> dict[str, str]:
  """What the compiler is told about a step on this mesh.

  On CPU, not to drop the barriers between blocks (`models.remat`) before it decides what to compute together.

  Where weights are cut over fsdp, XLA on TPU would take their matrix products apart into loops over the parts, to hide
  the transfer behind products that are too narrow for the matrix units. As a whole, they are fetched behind other work.
  """
  platform = mesh.devices.flat[0].platform
  if platform == "cpu":
    return models.compiler_options(platform)
  if platform != "tpu" or mesh.shape["fsdp"] == 1:
    return {}
  return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def _check_classes(train_split, eval_split):
  if train_split.multi_label:
    raise UserError(f"{train_split.name} has several labels for an image: it is for evaluation only")
  train, other = train_split.class_names, eval_split.class_names
  if train != other:
    only = sorted(set(train) ^ set(other))
    raise UserError(
      f"{train_split.name} has {len(train):,} classes, {eval_split.name} {len(other):,}; only one of the two has"
      f" {', '.join(only[:5])}{' ...' if only[5:] else ''}"
    )


def _check_batch(config, shards):
  """Raises UserError unless every one of `shards` groups of devices gets as many images, in every part of a step."""
  batch_size, parts = config.data.batch_size, config.accumulation_steps
  if batch_size % (parts * shards):
    of_parts = f" in each of {parts} accumulation steps" if parts > 1 else ""
    raise UserError(
      f"data.batch_size={batch_size} cannot be split evenly over {shards} devices{of_parts}:"
      f" take a multiple of {parts * shards}"
    )
  rows = batch_size // shards
  if rows % 2 and (config.augment.mixup or config.augment.cutmix):
    raise UserError(
      f"data.batch_size={batch_size} leaves {rows} images on each of {shards} devices:"
      f" mixup and cutmix pair the images of a device, so take a multiple of {2 * shards}"
    )
