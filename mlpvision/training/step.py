"""One training step: augment, differentiate, update. A pure function of (state, batch)."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from mlpvision import tasks
from mlpvision.models import layers


def make_train_step(
  model: nn.Module, optimizer: optax.GradientTransformation, config: ml_collections.ConfigDict
) -> Callable[[Any, Mapping[str, jax.Array]], tuple[Any, dict[str, jax.Array]]]:
  """The function (state, batch) -> (state, metrics) for `jax.jit`.

  batch: the task's arrays and "replaced"; for classification {"image": uint8 [B, H, W, 3], "label": int32 [B],
  "replaced": bool [B]}. metrics: float32 scalars: loss and the task's metrics, means over the batch; grad_norm and
  update_norm, over all parameters; finite, 1 if loss and gradient are finite; replaced, the number of images that could
  not be read. All randomness depends on (config.seed, state.step) alone, so a step can be repeated exactly.
  """
  task = tasks.of(config)

  def mean_loss(params, key, images, targets):
    outputs = model.apply({"params": params}, images, train=True, rngs={"dropout": key})
    return task.loss(outputs, targets, config)

  def objective_of_part(params, key, images, targets):
    images, targets = jax.tree.map(lambda x: x[:: config.accumulation_steps], (images, targets))
    return mean_loss(params, key, images, targets)[0]

  def train_step(state, batch):
    augment_key, model_key = step_keys(config.seed, state.step)
    images, targets = task.augmented(augment_key, batch, model.num_classes, config)
    gradient = jax.value_and_grad(mean_loss, has_aux=True)
    (loss, means), grads = accumulate(gradient, config.accumulation_steps, state.params, model_key, images, targets)
    again = functools.partial(objective_of_part, key=model_key, images=images, targets=targets)
    # The loss, and how to compute it again, are for the few optimizers that read them.
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=loss, obj_fn=again)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
      ema = optax.incremental_update(params, ema, 1.0 - config.ema_decay)
    # For the norm of `updates`, XLA would compute the update a second time; this sum is fused with the update.
    change = optax.tree.sub(params, state.params)
    metrics = {"loss": loss, **means, "grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(change)}
    metrics["finite"] = (jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])).astype(jnp.float32)
    metrics["replaced"] = batch["replaced"].sum(dtype=jnp.float32)
    return state.replace(step=state.step + 1, params=params, ema=ema, opt_state=opt_state), metrics

  return train_step


def step_keys(seed: int, step: jax.typing.ArrayLike) -> jax.Array:
  """(augmentation key, dropout key) of a step."""
  return jax.random.split(jax.random.fold_in(jax.random.key(seed), step))


def accumulate(
  gradient: Callable[..., Any],
  parts: int,
  params: Mapping[str, Any],
  key: jax.Array,
  images: jax.Array,
  targets: Any,
) -> Any:
  """The mean of `gradient(params, key, images, targets)` over equal parts of the batch, computed one at a time."""
  if parts == 1:
    return gradient(params, key, images, targets)

  def split(x):
    # Part i has rows i, i + parts, ..., so each device keeps its own rows. Contiguous parts would move all of them.
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

  def add(total, part):
    i, images, targets = part
    with layers.part_of_batch(i, parts):  # makes random draws per image independent of the number of parts
      result = gradient(params, key, images, targets)
    return jax.tree.map(jnp.add, total, result), None

  scanned = (jnp.arange(parts), *jax.tree.map(split, (images, targets)))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, key, images, targets))
  total, _ = jax.lax.scan(add, zeros, scanned)
  return jax.tree.map(lambda x: x / parts, total)
