"""Builds and checks everything that training needs from a config, before anything is computed on a device."""

from collections.abc import Mapping, Sequence
import dataclasses
import time
from typing import Any

from flax import linen as nn
import jax
from jax.sharding import NamedSharding
import ml_collections
import optax

from mlpvision import durations, models, sharding, tasks, trained as trained_lib
from mlpvision.data import datasets
from mlpvision.errors import UserError
from mlpvision.evaluate import evaluators
from mlpvision.training import distill, lr_multipliers, optim, shard_update, step as step_lib, warm_start


@dataclasses.dataclass(frozen=True)
class Parts:
  """Everything that is needed to compile a run's step, without its images.

  every: steps between logged metrics ("log"), checkpoints ("checkpoint"; absent if save_seconds is set) and runs of
    each evaluator (by its name in config.evals).
  save_seconds: seconds between checkpoints, or None.
  """

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  model: nn.Module
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  init: step_lib.Init
  abstract: step_lib.TrainState  # of shapes, dtypes and shardings
  total_steps: int
  steps_per_epoch: float
  every: dict[str, int]
  save_seconds: float | None
  teacher: distill.Teacher | None


@dataclasses.dataclass(frozen=True)
class Setup(Parts):
  """`Parts` with the data of a run. source: the model of a warm start, or None; note: on the classes, or None."""

  train_split: datasets.Split
  eval_split: datasets.Split
  source: trained_lib.Trained | None
  note: str | None


def set_up(config: ml_collections.ConfigDict, *, warm: bool = False) -> Setup:
  """Builds a `Setup` for all devices.

  warm: open config.init_from for a warm start. This may be a download, so all other checks come first. Model options
    that the config does not have are then taken from the source; `Setup.config` has them all.

  Raises UserError: an invalid dataset, mesh, batch size, duration, optimizer, model or source of a warm start.
  """
  train_split = datasets.of(config, config.data.train_split, training=True)
  eval_split = datasets.of(config, config.data.eval_split)
  _check_classes(train_split)
  eval_split, note = datasets.with_classes(eval_split, train_split.class_names, train_split.name)
  basis = _basis(config, len(train_split))
  source = None
  if warm:
    source = warm_start.open_source(config, basis["mesh"], train_split.class_names)
    config = warm_start.completed(config, source)
  parts = _with_model(config, basis, len(train_split.class_names), train_split.class_names)
  return Setup(**vars(parts), train_split=train_split, eval_split=eval_split, source=source, note=note)


def make_parts(
  config: ml_collections.ConfigDict, *, num_images: int, num_classes: int, devices: Sequence[Any] | None = None
) -> Parts:
  """Builds the `Parts` of a run without its dataset, of which num_images and num_classes describe the training split.

  devices: the devices of the mesh, or their descriptions; default: all devices.

  Raises UserError: an invalid mesh, batch size, duration, optimizer or model.
  """
  return _with_model(config, _basis(config, num_images, devices), num_classes)


def _basis(config, num_images, devices=None):
  """The fields of `Parts` that do not depend on the model."""
  tasks.of(config).check(config)
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model, devices=devices)
  _check_batch(config, sharding.batch_parts(mesh))
  batch_size = config.data.batch_size
  counts = dict(batch_size=batch_size, num_images=num_images)
  total_steps = durations.to_steps(config.duration, field="duration", **counts)
  if not total_steps:
    raise UserError(
      f"duration={config.duration!r} is less than one step: the training split has {num_images:,} images, and"
      f" data.batch_size is {batch_size:,}. Increase the duration or reduce the batch size"
    )
  intervals = [("log", "log_every", config.log_every)]
  for name, entry in evaluators.entries(config).items():
    own = entry.get("every")
    intervals.append((name, f"evals.{name}.every" if own else "eval.every", own or config.eval.every))
  save_seconds = durations.to_seconds(config.checkpoint.every)
  if save_seconds is None:
    intervals.append(("checkpoint", "checkpoint.every", config.checkpoint.every))
  every = {name: max(1, durations.to_steps(value, field=field, **counts)) for name, field, value in intervals}
  optimizer, schedule = make_optimizer(config.optim, total_steps, counts)
  return dict(
    mesh=mesh, optimizer=optimizer, schedule=schedule, total_steps=total_steps, every=every, save_seconds=save_seconds,
    steps_per_epoch=num_images / batch_size,
  )  # fmt: skip


def _with_model(config, basis, num_classes, class_names=()):
  """`Parts` from the result of `_basis`."""
  model = tasks.make_model(config, num_classes)
  image_size = config.data.image_size
  init = step_lib.Init(model, basis["optimizer"], image_size, config.ema_decay > 0)
  try:
    over = shard_update.axes(basis["mesh"], config.mesh.shard_update)
    abstract = step_lib.abstract_state(init, basis["mesh"], config.mesh.rules, over)
  except ValueError as error:
    raise UserError(f"model {config.model.name} with data.image_size={image_size}: {error}") from error
  lr_multipliers.check(abstract.params, config.optim.lr_multipliers)
  if config.optim.weight_decay:
    optim.check_pattern("optim.decay_mask", config.optim.decay_mask, abstract.params)
  teacher = distill.open_teacher(config, basis["mesh"], num_classes, class_names)
  return Parts(config=config, model=model, init=init, abstract=abstract, teacher=teacher, **basis)


def make_optimizer(
  config: ml_collections.ConfigDict, total_steps: int, counts: Mapping[str, int]
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """(optimizer, schedule) that config.optim describes. counts: batch_size and num_images for `durations.to_steps`."""
  steps = {
    f"{name}_steps": durations.to_steps(config.schedule[name], field=f"optim.schedule.{name}", **counts)
    for name in ("warmup", "every", "delay")
  }
  ends = {name: config.schedule[name] for name in ("start", "end", "clock", "factor")}
  steps["milestone_steps"] = [
    durations.to_steps(value, field="optim.schedule.milestones", **counts) for value in config.schedule.milestones
  ]
  lengths = dict(total_steps=total_steps, **steps)
  schedule = optim.make_schedule(config.schedule.name, peak=config.learning_rate, **lengths, **ends)
  options = {name: config[name] for name in ("weight_decay", "decay_mask", "clip_norm", "kwargs")}
  skip = config.nonfinite == "skip"
  optimizer = optim.make_optimizer(config.name, schedule, **options, skip_nonfinite=skip)
  if config.name.startswith("schedule_free") and (config.lr_multipliers or config.layer_decay != 1):
    raise UserError(f"optim.name={config.name!r} averages its steps: it takes no optim.lr_multipliers or layer_decay")
  return lr_multipliers.scaled(optimizer, config.lr_multipliers, config.layer_decay), schedule


def lower_step(parts: Parts, shape: int = 0) -> jax.stages.Lowered:
  """The train step, lowered for the mesh; it donates the state. Compile it with `compiler_options(parts.mesh)`.

  With a teacher, its third argument is `parts.teacher.placed()`.

  shape: index in `tasks.batch_specs`.
  """
  rows, batch_size = NamedSharding(parts.mesh, sharding.BATCH), parts.config.data.batch_size
  batch = {
    name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=rows)
    for name, (shape, dtype) in tasks.batch_specs(parts.config)[shape].items()
  }
  params = parts.abstract.params
  whole = step_lib.placed({"params": params}, parts.mesh, parts.config.mesh.rules)["params"]
  gather = shard_update.gatherer(parts.model, params, whole)
  teacher = parts.teacher
  step = step_lib.make_train_step(
    parts.model, parts.optimizer, parts.config, gather, teacher and teacher.of_step(parts.config)
  )
  shardings = jax.tree.map(lambda x: x.sharding, parts.abstract)
  jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
  return jitted.lower(parts.abstract, batch, *([teacher.abstract] if teacher else []))


def compile_step(parts: Parts, shape: int = 0) -> tuple[jax.stages.Compiled, float]:
  """(compiled train step for the batches of a shape, seconds of compilation). shape: index in `tasks.batch_specs`."""
  started = time.perf_counter()
  compiled = lower_step(parts, shape).compile(compiler_options=compiler_options(parts.mesh))
  return compiled, time.perf_counter() - started


def compiler_options(mesh: jax.sharding.Mesh) -> dict[str, str]:
  """Compiler options of a step: `models.compiler_options`, and one for sharded parameters on TPU.

  XLA on TPU would split matrix products with weights that are sharded over data or fsdp, or with such gradients, into
  loops over the shards, to overlap the transfer. Such products are too narrow for the matrix units. With this option,
  weights are gathered and gradients are scattered as a whole, which overlaps other computation.
  """
  platform = mesh.devices.flat[0].platform
  options = models.compiler_options(platform)
  if platform == "tpu" and sharding.batch_parts(mesh) > 1:
    options["xla_jf_spmd_threshold_for_windowed_einsum_mib"] = "1000000"
  return options


def _check_classes(split):
  if split.multi_label:
    raise UserError(f"{split.name} has several labels per image: it is for evaluation only")
  if len(split.class_names) < 2 and split.task == "classification":
    raise UserError(f"{split.name} has only one class, {split.class_names[0]}; training needs two")


def _check_batch(config, shards):
  """Raises UserError unless all shards get the same number of images, in every accumulation step."""
  batch_size, parts = config.data.batch_size, config.accumulation_steps
  if batch_size % (parts * shards):
    of_parts = f" in each of {parts} accumulation steps" if parts > 1 else ""
    raise UserError(
      f"data.batch_size={batch_size} cannot be split evenly over {shards} devices{of_parts}:"
      f" use a multiple of {parts * shards}"
    )
  rows = batch_size // shards
  if rows % 2 and (config.augment.mixup or config.augment.cutmix):
    raise UserError(
      f"data.batch_size={batch_size} puts {rows} images on each of {shards} devices, but mixup and cutmix need pairs:"
      f" use a multiple of {2 * shards}"
    )
