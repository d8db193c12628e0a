"""Optimizers and learning-rate schedules of optax, by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mlpvision.errors import UserError

SCHEDULES = ("cosine", "linear", "step", "constant")
CLOCKS = ("warmup", "zero", "product")

# optax's names for the mask of weight decay, and LARS's for its layer-wise scaling.
_MASKS = ("mask", "weight_decay_mask", "trust_ratio_mask")


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
  milestone_steps: Sequence[int] = (),
  factor: float = 0.1,
) -> optax.Schedule:
  """Learning rate as a function of the step: linear from `start` to `peak`, then down to `end`.

  Args:
    name: "cosine", "linear", "step" (multiplied by `factor` at each milestone) or "constant" (stays at the peak).
    peak, start, end: learning rates.
    warmup_steps, total_steps: the peak is reached at warmup_steps, the end at total_steps.
    clock: "warmup": the decay starts when the warm-up ends. "zero": the decay covers all total_steps, and the warm-up
      replaces its first warmup_steps (timm's schedulers, used by DeiT and Swin). "product": the decay covers all
      total_steps, and is multiplied by a factor that grows from start / peak to 1 in the warm-up (mmcv's hooks).
    every_steps: the rate changes only once in this many steps; the other numbers of steps are rounded to multiples.
    delay_steps: each step has the rate of this many steps before; the first ones have step 0's.
    milestone_steps, factor: of "step"; milestones are counted from step 0, whatever the clock.

  Returns:
    A function from step to learning rate.
  """
  if name not in SCHEDULES:
    raise UserError(f"unknown optim.schedule.name {name!r}; one of {', '.join(SCHEDULES)}")
  if clock not in CLOCKS:
    raise UserError(f"unknown optim.schedule.clock {clock!r}; one of {', '.join(CLOCKS)}")
  if warmup_steps > total_steps:
    raise UserError(f"the warm-up of {warmup_steps} steps is longer than the whole run of {total_steps}")
  if every_steps < 1:
    raise UserError("optim.schedule.every: must be at least one step")
  if every_steps > 1 or delay_steps:
    periods = [round(steps / every_steps) for steps in (warmup_steps, total_steps, delay_steps)]
    milestones = [round(steps / every_steps) for steps in milestone_steps]
    counted = make_schedule(
      name, peak=peak, warmup_steps=periods[0], total_steps=max(1, periods[1]), start=start, end=end, clock=clock,
      milestone_steps=milestones, factor=factor,
    )  # fmt: skip
    return lambda step: counted(jnp.maximum(step // every_steps - periods[2], 0))
  elapsed = 0 if clock == "warmup" and name != "step" else warmup_steps  # of the decay, when the warm-up ends
  decay_steps = max(1, total_steps - warmup_steps + elapsed)
  decay = {
    "cosine": lambda: optax.cosine_decay_schedule(peak, decay_steps, alpha=end / peak),
    "linear": lambda: optax.linear_schedule(peak, end, decay_steps),
    "step": lambda: optax.piecewise_constant_schedule(peak, dict.fromkeys(milestone_steps, factor)),
    "constant": lambda: optax.constant_schedule(peak),
  }[name]()
  if not warmup_steps:
    return decay
  if clock == "product":
    factor = optax.linear_schedule(start / peak, 1.0, warmup_steps)
    return lambda step: factor(step) * decay(step)
  warmup = optax.linear_schedule(start, peak, warmup_steps)
  return optax.join_schedules([warmup, lambda step: decay(step + elapsed)], [warmup_steps])


def make_optimizer(
  name: str,
  schedule: optax.ScalarOrSchedule,
  *,
  weight_decay: float = 0.0,
  decay_mask: str = "kernel$",
  clip_norm: float = 0.0,
  kwargs: Mapping[str, Any] | None = None,
  skip_nonfinite: bool = False,
) -> optax.GradientTransformationExtraArgs:
  """An optimizer of `OWN`, optax or optax.contrib, after clipping by the global norm.

  Args:
    name: such as "adamw".
    schedule: the learning rate.
    weight_decay: the optimizer's own argument.
    decay_mask: regex; selects by path the parameters that are decayed, and in LARS and LAMB scaled by layer.
    clip_norm: maximum norm; 0 does not clip.
    kwargs: the optimizer's other arguments.
    skip_nonfinite: gradients with NaN or infinity change neither parameters nor the optimizer's state.

  Returns:
    A transformation whose `update` also takes value (the loss) and obj_fn (parameters -> loss), which some need.

  Raises:
    UserError: unknown name or argument; weight decay without a mask; or the optimizer needs further inputs.
  """
  constructor = OWN.get(name) or getattr(optax, name, None) or getattr(optax.contrib, name, None)
  arguments = inspect.signature(constructor).parameters if inspect.isfunction(constructor) else {}
  if "learning_rate" not in arguments or name.startswith(("_", "scale_by")):
    raise UserError(f"unknown optim.name {name!r}: no such optimizer in optax or optax.contrib (adamw, sgd, muon, ...)")
  masks, has_decay = [mask for mask in _MASKS if mask in arguments], "weight_decay" in arguments
  free = [argument for argument in arguments if argument not in ("learning_rate", "weight_decay", *masks)]
  options = dict(kwargs or {})
  for key in options:
    if key not in free:
      raise UserError(f"optim.kwargs.{key}: in addition to the config's fields, {name} takes {', '.join(free)}")
  if weight_decay and not (has_decay and masks):
    problem = "decays all parameters, including norms and biases" if has_decay else "has no weight decay"
    raise UserError(f"{name} {problem}: set optim.weight_decay=0, or use an optimizer with a mask, such as adamw")
  if has_decay:
    options["weight_decay"] = weight_decay
  if "safeguard_warmup" in arguments:  # Prodigy divides by the learning rate, which is 0 when the warm-up starts
    options.setdefault("safeguard_warmup", True)
  options |= dict.fromkeys(masks, make_mask(decay_mask))
  clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  try:
    optimizer = optax.with_extra_args_support(optax.chain(*clip, constructor(learning_rate=schedule, **options)))
    jax.eval_shape(lambda params: _try(optimizer, params), {"kernel": jax.ShapeDtypeStruct((256, 128), jnp.float32)})
  except (TypeError, ValueError) as error:
    raise UserError(f"optim.name={name!r} needs inputs that the train step does not have: {error}") from error
  # The loop limits consecutive failures; optax would apply the update after its own limit.
  return optax.apply_if_finite(optimizer, max_consecutive_errors=2**31 - 2) if skip_nonfinite else optimizer


def _try(optimizer, params):
  state = optimizer.init(params)
  return optimizer.update(params, state, params, value=jnp.zeros(()), obj_fn=lambda params: params["kernel"].sum())


def lamb(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-6,
  weight_decay: float = 0.0,
  mask: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
  """LAMB (arXiv 1904.00962) as in NVIDIA's code and timm, used for ResMLP: scales only the parameters in `mask`.

  optax.lamb scales every array by its own norm, so that a LayerScale initialized to 1e-5 hardly changes.

  Args:
    learning_rate, b1, b2, eps: see optax.adamw.
    weight_decay: added to Adam's direction, before the layer-wise scaling.
    mask: a function from parameters to a tree of bools, which are decayed and scaled; None: all.
  """
  mask = mask or (lambda params: jax.tree.map(lambda _: True, params))
  return optax.chain(
    optax.scale_by_adam(b1, b2, eps),
    optax.add_decayed_weights(weight_decay, mask),
    optax.masked(optax.scale_by_trust_ratio(), mask),
    optax.scale_by_learning_rate(learning_rate),
  )


def schedule_free_adamw(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  mask: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Schedule-free AdamW (arXiv 2405.15682) with a mask, which optax.contrib's lacks. Evaluate `evaluation_params`.

  Args:
    learning_rate: constant after the warm-up.
    b1: weight of the average in the interpolation with the iterates, above 0.
    b2, eps, weight_decay, mask: see optax.adamw.
  """
  adamw = optax.adamw(learning_rate, b1=0.0, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask)
  return optax.contrib.schedule_free(adamw, learning_rate, b1=b1)


def sophia(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.965,
  b2: float = 0.99,
  gamma: float = 0.01,
  update_interval: int = 10,
  weight_decay: float = 0.0,
  mask: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Sophia-H (arXiv 2305.14342) of optax.contrib, with a Hessian estimate in reverse mode, as our models require.

  Args:
    learning_rate, b1, b2, gamma, update_interval: see optax.contrib.sophia.
    weight_decay, mask: see optax.adamw.
  """

  def estimate(updates, key, params, *, obj_fn, **_):
    del updates
    key, own = jax.random.split(key)
    signs = optax.tree.random_like(own, params, jax.random.rademacher, jnp.float32)
    products = jax.grad(lambda params: optax.tree.vdot(jax.grad(obj_fn)(params), signs))(params)
    return jax.tree.map(jnp.multiply, products, signs), key

  hessian = optax.GradientTransformationExtraArgs(lambda params: jax.random.PRNGKey(0), estimate)
  decay = dict(weight_decay=weight_decay, weight_decay_mask=mask)
  options = dict(gamma=gamma, update_interval=update_interval, hessian_diagonal_fn=hessian)
  return optax.contrib.sophia(learning_rate, b1, b2, **decay, **options)


# These take precedence over optax's.
OWN = {"lamb": lamb, "schedule_free_adamw": schedule_free_adamw, "sophia": sophia}


def evaluation_params(opt_state: Any, params: Any) -> Any:
  """The parameters to evaluate: `params`, except that schedule-free optimizers evaluate an average."""
  is_schedule_free = lambda node: isinstance(node, optax.contrib.ScheduleFreeState)  # noqa: E731
  for node in jax.tree.leaves(opt_state, is_leaf=is_schedule_free):
    if is_schedule_free(node):
      return optax.contrib.schedule_free_eval_params(node, params)
  return params


def make_mask(pattern: str) -> Callable[[Any], Any]:
  """A function from parameters to a tree of bools: whether the regex matches a path. UserError for an invalid regex."""
  regex = _compile("optim.decay_mask", pattern)
  return lambda params: jax.tree.map_with_path(lambda path, _: regex.search(to_text(path)) is not None, params)


def check_pattern(field: str, pattern: str, params: Any) -> None:
  """Raises UserError, naming the config's field, unless the regex matches at least one parameter's path."""
  regex = _compile(field, pattern)
  paths = [to_text(path) for path, _ in jax.tree.leaves_with_path(params)]
  if not any(regex.search(path) for path in paths):
    raise UserError(f"{field}: {pattern!r} is in no parameter's path; paths are like {', '.join(paths[:3])}")


def to_text(path: Iterable[Any]) -> str:
  """A path in nested dicts as text, such as "block_0/norm/scale"."""
  return "/".join(key.key for key in path)


def _compile(field, pattern):
  try:
    return re.compile(pattern)
  except re.error as error:
    raise UserError(f"{field}: {pattern!r} is not a regular expression ({error})") from error
