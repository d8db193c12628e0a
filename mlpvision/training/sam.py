"""Sharpness-aware minimization (SAM, arXiv 2010.01412): where the second gradient of a step is taken."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from mlpvision.training import lr_multipliers


def ascended(params: Any, gradient: Any, config: ml_collections.ConfigDict) -> Any:
  """The parameters w + rho * g / ||g||, where the loss is about the highest within rho of w (Eq. 2).

  The norm is over all trained parameters, as one vector. Those with a learning-rate multiplier of 0 stay where they are
  and do not count. A gradient of 0 moves nothing.

  g is the gradient of the whole batch's mean loss, so the step is the same on any mesh and with accumulation. In the
  published results each accelerator ascends by the gradient of its own images instead, and the second gradients are
  averaged (Sec. 4.1, "m-sharpness"; big_vision's GSAM, "per-worker perturbation"). That result depends on the number of
  devices, and the paper finds that fewer images per device generalize better; here the best rho may be another one.

  optax.contrib.sam has the same mathematics, but not this step: it divides by a norm of 0, moves frozen parameters,
  passes no loss to the optimizer that it wraps, and its state would not be that of a run without SAM.

  Args:
    params: nested dict of float32 arrays, in any sharding.
    gradient: such a tree.
    config: config.optim, of which sam_rho (in the units of the parameters) and lr_multipliers are read.
  """
  if config.lr_multipliers:
    factors = lr_multipliers.factors(params, config.lr_multipliers)
    gradient = jax.tree.map(lambda factor, g: g if factor else jnp.zeros_like(g), factors, gradient)
  norm = optax.tree.norm(gradient)
  scale = config.sam_rho / jnp.where(norm > 0, norm, 1.0)
  return jax.tree.map(lambda w, g: w + scale * g, params, gradient)
