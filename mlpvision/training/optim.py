"""Optimizers and learning-rate schedules from optax, by their names."""

import inspect

import jax
import optax

from mlpvision.errors import UserError

SCHEDULES = ("cosine", "linear", "constant")


def make_schedule(name, *, peak, warmup_steps, total_steps, start=0.0, end=0.0, clock="warmup"):
  """Learning rate as a function of the step: linear from `start` to `peak`, then down to `end`.

  Args:
    name: "cosine", "linear" or "constant" (which stays at the peak).
    peak, start, end: learning rates.
    warmup_steps, total_steps: the peak is due at warmup_steps, the end at total_steps.
    clock: "warmup": the decay starts at the peak when the warm-up ends. "zero": it is the decay over all total_steps,
      whose first warmup_steps the warm-up replaces (timm's schedulers, so DeiT's and Swin's).

  Returns:
    Callable from int step to float.
  """
  if name not in SCHEDULES:
    raise UserError(f"unknown optim.schedule.name {name!r}; one of {', '.join(SCHEDULES)}")
  if clock not in ("warmup", "zero"):
    raise UserError(f"unknown optim.schedule.clock {clock!r}; 'warmup' or 'zero'")
  if warmup_steps > total_steps:
    raise UserError(f"the warm-up of {warmup_steps} steps is longer than the whole run of {total_steps}")
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


def make_optimizer(name, schedule, *, weight_decay=0.0, clip_norm=0.0, kwargs=None, skip_nonfinite=False):
  """A constructor of optax by name, behind clipping by the global norm.

  Weight decay is the constructor's own, and goes to parameters of two or more dimensions only: not to biases and
  norms, as in every recipe here. skip_nonfinite: gradients with a NaN or an infinity change nothing, not even the
  optimizer's own state.

  Raises:
    UserError: unknown constructor or argument, or weight decay for one that has none.
  """
  constructor = getattr(optax, name, None)
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


def decay_mask(params):
  """Which parameters weight decay applies to: those of two or more dimensions."""
  return jax.tree.map(lambda p: p.ndim > 1, params)
