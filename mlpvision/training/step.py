"""The training state, and one step: augment, differentiate, update. A pure function of (state, batch)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import flax.struct
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from mlpvision import models, sharding, tasks
from mlpvision.models import layers
from mlpvision.training import sam


@flax.struct.dataclass
class TrainState:
  """The state of training; docs/design.md says how each part is carried.

  step: int32 []; params: float32 tree; ema: such a tree, or None; opt_state: the optimizer's.
  stats: the model's other variables, {"batch_stats": float32 tree}, or {}; ema_stats: their EMA, {} if there is none.
  """

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any
  stats: Any = flax.struct.field(default_factory=dict)
  ema_stats: Any = flax.struct.field(default_factory=dict)

  @property
  def ema_variables(self) -> dict[str, Any] | None:
    """The averages, for `model.apply`; None without an EMA."""
    return None if self.ema is None else {"params": self.ema, **self.ema_stats}


class Distillation(NamedTuple):
  """What a step with a teacher needs: logits(teacher's variables, images), and loss(logits, teacher's, targets)."""

  logits: Callable[..., jax.Array]
  loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Init:
  """Makes initial states: init(key).

  image_size: side of the images; ema: whether a state has an average of the parameters.
  """

  model: nn.Module
  optimizer: optax.GradientTransformation
  image_size: int
  ema: bool

  def __call__(self, key: jax.Array) -> TrainState:
    """The state of step 0, with random parameters."""
    return self.state(self.variables(key))

  def variables(self, key: jax.Array) -> dict[str, Any]:
    """Random parameters and the initial values of the model's other variables, without computing a forward pass.

    Raises flax.errors.LazyInitError if an initial value depends on the images.
    """
    return dict(self.model.lazy_init(key, jax.ShapeDtypeStruct((1, self.image_size, self.image_size, 3), jnp.float32)))

  def state(self, variables: Mapping[str, Any]) -> TrainState:
    """The state of step 0 with these variables."""
    stats = dict(variables)
    params = stats.pop("params")
    averages, average_stats = jax.tree.map(jnp.copy, (params, stats)) if self.ema else (None, {})
    return TrainState(jnp.zeros((), jnp.int32), params, averages, self.optimizer.init(params), stats, average_stats)


def abstract_state(
  init: Init,
  mesh: jax.sharding.Mesh,
  rules: Iterable[tuple[str, Sequence[Any]]] = (),
  over: tuple[str, ...] = ("fsdp",),
) -> TrainState:
  """Shapes, dtypes and shardings of the state, without computing it. rules, over: see `sharding.tree_shardings`."""
  return placed(jax.eval_shape(init, jax.random.key(0)), mesh, rules, over)


def placed(
  shapes: Any,
  mesh: jax.sharding.Mesh,
  rules: Iterable[tuple[str, Sequence[Any]]] = (),
  over: tuple[str, ...] = ("fsdp",),
) -> Any:
  """A tree of ShapeDtypeStruct, with the shardings of `sharding.tree_shardings` for the model families."""
  model_axis = tuple(rule for family in models.FAMILIES for rule in family.model_axis)
  shardings = sharding.tree_shardings(shapes, mesh, rules, model_axis, over)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def create_state(
  init: Init, abstract: TrainState, seed: int, loaded: Mapping[str, np.ndarray] | None = None
) -> TrainState:
  """The state of step 0, in its shardings.

  Each process draws all parameters on its first device: they do not depend on the mesh, and parameters of one shape
  share a compiled program. One program for all would draw each in code of its own, which compiles slowly.

  loaded: {"path/of/parameter" or "batch_stats/path": array}, the same on every process, instead of random values.
  """
  variables = init.variables(jax.random.key(seed))
  params, stats = variables.pop("params"), variables
  values = {**flatten_dict(params, sep="/"), **flatten_dict(stats, sep="/")} | dict(loaded or {})

  def on_mesh(path, target):
    array = np.asarray(values[path])
    return jax.make_array_from_callback(array.shape, target.sharding, array.__getitem__)

  def tree_of(targets):
    flat = flatten_dict(targets, sep="/")
    return unflatten_dict({path: on_mesh(path, target) for path, target in flat.items()}, sep="/")

  variables = {"params": tree_of(abstract.params), **tree_of(abstract.stats)}
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  return jax.jit(init.state, out_shardings=shardings)(variables)


def make_train_step(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  config: ml_collections.ConfigDict,
  gather: Callable[[Any], Any] = lambda params: params,
  distill: Distillation | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """The function (state, batch) -> (state, metrics) for `jax.jit`; with `distill`, (state, batch, teacher's variables).

  batch: the task's arrays and "replaced"; for classification {"image": uint8 [B, H, W, 3], "label": int32 [B],
  "replaced": bool [B]}. metrics: float32 scalars: loss and the task's metrics, means over the batch; grad_norm and
  update_norm, over all parameters; finite, 1 if loss and gradient are finite; replaced, the number of images that could
  not be read. All randomness depends on (config.seed, state.step) alone, so a step can be repeated exactly.

  With config.optim.sam_rho, the gradient is computed a second time, at `sam.ascended`, from the same augmented images
  with the same dropout. It updates the parameters and has the norm grad_norm; all else is of the first pass.

  gather: from the state's parameters to those that the model computes with, see `shard_update`.
  distill: None for no teacher, see `training.distill`.
  """
  task = tasks.of(config)
  parts = config.accumulation_steps

  def forward(params, stats, key, images, targets):
    """(outputs, the statistics after this batch)."""
    variables = {"params": gather(params), **stats}
    options = dict(train=True, rngs={"dropout": key}, mutable=list(stats))
    return task.forward(functools.partial(model.apply, variables, **options), images, targets)

  def counts_of(params, stats, key, images, targets):
    return task.counts(forward(params, stats, key, images, targets)[0])

  def mean_loss(params, stats, key, counts, images, targets):
    """(loss, (means, the statistics after this batch))."""
    outputs, stats = forward(params, stats, key, images, targets)
    loss, means = distill.loss(outputs, *targets) if distill else task.loss(outputs, targets, config, counts)
    return loss, (means, dict(stats))

  def objective_of_part(params, stats, key, counts, images, targets):
    images, targets = jax.tree.map(lambda x: x[::parts], (images, targets))
    return mean_loss(params, stats, key, counts, images, targets)[0]

  def gradient_of_batch(params, stats, key, images, targets):
    """(((loss, (means, the statistics after this batch)), gradient), counts), of all parts."""
    common, counts = (params, stats, key), None
    if parts > 1 and jax.tree.leaves(jax.eval_shape(counts_of, *common, images, targets)):
      # What the losses of all parts are divided by is known only after a forward pass of each.
      counts = accumulate(counts_of, parts, common, images, targets)
    gradient = jax.value_and_grad(mean_loss, has_aux=True)
    return accumulate(gradient, parts, (*common, counts), images, targets), counts

  def train_step(state, batch, teacher=None):
    augment_key, model_key = step_keys(config.seed, state.step)
    images, targets = task.augmented(augment_key, batch, model.num_classes, config)
    if distill:
      targets = distill.logits(teacher, images), targets
    same = (state.stats, model_key, images, targets)
    ((loss, (means, stats)), grads), counts = gradient_of_batch(state.params, *same)
    if config.optim.sam_rho:
      (_, grads), _ = gradient_of_batch(sam.ascended(state.params, grads, config.optim), *same)
    of_part = dict(stats=state.stats, key=model_key, counts=counts, images=images, targets=targets)
    again = functools.partial(objective_of_part, **of_part)
    # The loss, and how to compute it again, are for the few optimizers that read them.
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=loss, obj_fn=again)
    params = optax.apply_updates(state.params, updates)
    ema, ema_stats = state.ema, state.ema_stats
    if ema is not None:
      ema, ema_stats = optax.incremental_update((params, stats), (ema, ema_stats), 1.0 - config.ema_decay)
    # For the norm of `updates`, XLA would compute the update a second time; this sum is fused with the update.
    change = optax.tree.sub(params, state.params)
    metrics = {"loss": loss, **means, "grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(change)}
    metrics["finite"] = (jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])).astype(jnp.float32)
    metrics["replaced"] = batch["replaced"].sum(dtype=jnp.float32)
    changed = dict(params=params, ema=ema, opt_state=opt_state, stats=stats, ema_stats=ema_stats)
    return state.replace(step=state.step + 1, **changed), metrics

  return train_step


def step_keys(seed: int, step: jax.typing.ArrayLike) -> jax.Array:
  """(augmentation key, dropout key) of a step."""
  return jax.random.split(jax.random.fold_in(jax.random.key(seed), step))


def accumulate(gradient: Callable[..., Any], parts: int, common: Sequence[Any], images: jax.Array, targets: Any) -> Any:
  """The mean of `gradient(*common, images, targets)` over equal parts of the batch, computed one at a time."""
  if parts == 1:
    return gradient(*common, images, targets)

  def split(x):
    # Part i has rows i, i + parts, ..., so each device keeps its own rows. Contiguous parts would move all of them.
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

  def add(total, part):
    i, images, targets = part
    with layers.part_of_batch(i, parts):  # makes random draws per image independent of the number of parts
      result = gradient(*common, images, targets)
    return jax.tree.map(jnp.add, total, result), None

  scanned = (jnp.arange(parts), *jax.tree.map(split, (images, targets)))
  shapes = jax.eval_shape(gradient, *common, images, targets)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  total, _ = jax.lax.scan(add, zeros, scanned)
  return jax.tree.map(lambda x: x / parts, total)
