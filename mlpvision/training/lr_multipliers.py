"""Learning-rate multipliers per parameter, for freezing and for layer-wise decay."""

from collections.abc import Iterable, Mapping
import re
from typing import Any

import jax
import optax

from mlpvision import models
from mlpvision.errors import UserError
from mlpvision.models.naming import numbers
from mlpvision.training.optim import check_pattern, to_text


def check(params: Mapping[str, Any], multipliers: Iterable[tuple[str, float]]) -> None:
  """Raises UserError for a (regex, factor) pair whose regex matches no parameter, or whose factor is negative."""
  for pattern, factor in multipliers:
    check_pattern("optim.lr_multipliers", pattern, params)
    if factor < 0:
      raise UserError(f"optim.lr_multipliers: the factor {factor} of {pattern!r} must not be negative")


def factors(params: Mapping[str, Any], multipliers: Iterable[tuple[str, float]] = (), layer_decay: float = 1.0) -> Any:
  """The factor of each parameter's learning rate, as a tree of floats like params.

  Args:
    params: nested dict; only its paths are used.
    multipliers: (regex, factor) pairs. The first regex that matches a path, such as "block_3/channel_norm/scale", sets
      its factor; 0 freezes. Other paths have 1.
    layer_decay: also multiplies by this to the power of the number of layers above (arXiv 2106.08254, Sec. 3.3). All
      heads and the last norm are the top layer; each block is a layer, with the merging before it; stem, position
      embeddings and class tokens are the bottom layer.
  """
  layers = _layers(params.keys() - {"backbone"} | params.get("backbone", {}).keys())
  top = max(layers.values())

  def of(path, _):
    own = next((float(factor) for pattern, factor in multipliers if re.search(pattern, to_text(path))), 1.0)
    module = path[1] if path[0].key == "backbone" else path[0]
    return own * layer_decay ** (top - layers[module.key])

  return jax.tree.map_with_path(of, params)


def scaled(
  optimizer: optax.GradientTransformation, multipliers: Iterable[tuple[str, float]] = (), layer_decay: float = 1.0
) -> optax.GradientTransformation:
  """The optimizer with the learning rates of `factors`.

  Gradients of frozen parameters are set to zero before the optimizer, so that they count in no norm. Updates of frozen
  parameters are set to zero after it, so that they do not decay.
  """
  if not multipliers and layer_decay == 1.0:
    return optimizer

  def freeze(updates, params):
    del params
    return jax.tree.map(lambda factor, u: u if factor else u * 0, factors(updates, multipliers, layer_decay), updates)

  def scale(updates, params):
    del params
    return jax.tree.map(lambda factor, u: u * factor, factors(updates, multipliers, layer_decay), updates)

  return optax.chain(optax.stateless(freeze), optimizer, optax.stateless(scale))


def _layers(names):
  """{top-level name: index of its layer}, from the bottom; follows the names in docs/design.md."""
  templates = {family.block for family in models.FAMILIES}
  found = {name: numbers(name, template) for name in names for template in templates if numbers(name, template)}
  blocks = sorted(found, key=lambda name: tuple(found[name].values()))
  layers = {name: i + 1 for i, name in enumerate(blocks)}
  for name in names - layers.keys():
    if re.match(r"stem|cls_|pos_", name):
      layers[name] = 0
    elif merging := numbers(name, "merge_{s}"):  # leads to the first block of the next stage
      layers[name] = layers[f"stage_{merging['s'] + 1}_block_0"]
    else:
      layers[name] = len(blocks) + 1
  return layers
