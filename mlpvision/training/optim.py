"""Optimizers and learning-rate schedules from optax, by their names."""

from collections.abc import Callable, Mapping
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mlpvision.errors import UserError

SCHEDULES = ("cosine", "linear", "constant")

# Biases and norms have one dimension; these have more, and no recipe here decays them either.
_NOT_DECAYED = ("pos_embedding", "cls_pos_embedding", "cls_token", "relative_position_bias")


def make_schedule(
  name: str,
  *,
  peak: float,
  warmup_steps: int,
  total_steps: int,
  start: float = 0.0,
  end: float = 0.0,
  clock: str = "warmup",
  every_steps: int = 1,
  delay_steps: int = 0,
) -> optax.Schedule:
  """Learning rate as a function of the step: linear from `start` to `peak`, then down to `end`.

  Args:
    name: "cosine", "linear" or "constant" (which stays at the peak).
    peak, start, end: learning rates.
    warmup_steps, total_steps: the peak is due at warmup_steps, the end at total_steps.
    clock: "warmup": the decay starts at the peak when the warm-up ends. "zero": it is the decay over all total_steps,
      whose first warmup_steps the warm-up replaces (timm's schedulers, so DeiT's and Swin's).
    every_steps: the rate changes once in this many steps; the other numbers of steps are rounded to multiples of it.
    delay_steps: each step has the rate that was due this many steps before; the first ones have step 0's.

  Returns:
    Callable from int step to float.
  """
  if name not in SCHEDULES:
    raise UserError(f"unknown optim.schedule.name {name!r}; one of {', '.join(SCHEDULES)}")
  if clock not in ("warmup", "zero"):
    raise UserError(f"unknown optim.schedule.clock {clock!r}; 'warmup' or 'zero'")
  if warmup_steps > total_steps:
    raise UserError(f"the warm-up of {warmup_steps} steps is longer than the whole run of {total_steps}")
  if every_steps < 1:
    raise UserError("optim.schedule.every: must be at least one step")
  if every_steps > 1 or delay_steps:
    periods = [round(steps / every_steps) for steps in (warmup_steps, total_steps, delay_steps)]
    counted = make_schedule(
      name, peak=peak, warmup_steps=periods[0], total_steps=max(1, periods[1]), start=start, end=end, clock=clock
    )
    return lambda step: counted(jnp.maximum(step // every_steps - periods[2], 0))
  elapsed = warmup_steps if clock == "zero" else 0  # of the decay, when the warm-up ends
  decay_steps = max(1, total_steps - warmup_steps + elapsed)
  decay = {
    "cosine": lambda: optax.cosine_decay_schedule(peak, decay_steps, alpha=end / peak),
    "linear": lambda: optax.linear_schedule(peak, end, decay_steps),
    "constant": lambda: optax.constant_schedule(peak),
  }[name]()
  if not warmup_steps:
    return decay
  warmup = optax.linear_schedule(start, peak, warmup_steps)
  return optax.join_schedules([warmup, lambda step: decay(step + elapsed)], [warmup_steps])


def make_optimizer(
  name: str,
  schedule: optax.ScalarOrSchedule,
  *,
  weight_decay: float = 0.0,
  clip_norm: float = 0.0,
  kwargs: Mapping[str, Any] | None = None,
  skip_nonfinite: bool = False,
) -> optax.GradientTransformation:
  """A constructor of optax by name, behind clipping by the global norm; "lamb" is `lamb` below.

  Weight decay is the constructor's own, and goes to the parameters of `decay_mask` only. skip_nonfinite: gradients with
  a NaN or an infinity change nothing, not even the optimizer's own state.

  Raises:
    UserError: unknown constructor or argument, or weight decay for one that has none.
  """
  constructor = lamb if name == "lamb" else getattr(optax, name, None)
  arguments = inspect.signature(constructor).parameters if inspect.isfunction(constructor) else {}
  if "learning_rate" not in arguments:
    raise UserError(f"unknown optim.name {name!r}: optax has no such optimizer (adamw, adam, sgd, lamb, lion, ...)")
  kwargs = dict(kwargs or {})
  for key in kwargs:
    if key not in arguments:
      raise UserError(f"optim.kwargs.{key}: optax.{name} takes {', '.join(arguments)}")
  if "weight_decay" in arguments:
    kwargs.update(weight_decay=weight_decay, mask=decay_mask)
  elif weight_decay:
    raise UserError(f"optax.{name} has no weight decay: set optim.weight_decay=0 or take one that has, such as adamw")
  clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  optimizer = optax.chain(*clip, constructor(schedule, **kwargs))
  # The loop decides how many in a row are too many; optax would then let them through.
  return optax.apply_if_finite(optimizer, max_consecutive_errors=2**31 - 2) if skip_nonfinite else optimizer


def lamb(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-6,
  weight_decay: float = 0.0,
  mask: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
  """LAMB (arXiv 1904.00962), with layer-wise rates only where weights decay.

  That is NVIDIA's and timm's LAMB, which ResMLP was trained with. optax.lamb scales every leaf by its own norm: a
  LayerScale that starts at 1e-5 would hardly ever move.

  Args:
    learning_rate: a float, or a callable from the step to one.
    b1, b2, eps: of Adam.
    weight_decay: added to Adam's direction, before the layer-wise scaling.
    mask: a function from parameters to a tree of bools: which ones are decayed and scaled; None: all.
  """
  mask = mask or (lambda params: jax.tree.map(lambda _: True, params))
  return optax.chain(
    optax.scale_by_adam(b1, b2, eps),
    optax.add_decayed_weights(weight_decay, mask),
    optax.masked(optax.scale_by_trust_ratio(), mask),
    optax.scale_by_learning_rate(learning_rate),
  )


def decay_mask(params: Mapping[str, Any]) -> Any:
  """Which parameters weight decay applies to: matrices and kernels, not biases, norms, class tokens and positions."""
  return jax.tree.map_with_path(lambda path, p: p.ndim > 1 and path[-1].key not in _NOT_DECAYED, params)
