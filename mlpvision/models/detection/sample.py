"""Draws the anchors and proposals that losses are computed of (mmdetection's `RandomSampler`).

Candidates are an int32 array of `assign`: index of their object, BACKGROUND or IGNORED.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlpvision.models.detection import assign


class Slots(NamedTuple):
  """A fixed number of slots: positives by ascending index, then background by ascending index, then empty slots.

  Attributes:
    index: int32 [slots], of the candidate; 0 in empty slots.
    is_positive: bool [slots].
    is_filled: bool [slots].
  """

  index: jax.Array
  is_positive: jax.Array
  is_filled: jax.Array


def drawn(key: jax.Array, assigned: jax.Array, count: int, positive_fraction: float) -> jax.Array:
  """Which candidates are in a random sample, every subset of its size alike.

  Args:
    key: of jax.random.
    assigned: int32 [N].
    count: size of the sample, less if there are fewer candidates.
    positive_fraction: at most int(count * positive_fraction) are positives; background fills the rest.

  Returns:
    bool [N].
  """
  positive_key, background_key = jax.random.split(key)
  limit = int(count * positive_fraction)
  positives = _subset(positive_key, assigned >= 0, limit, limit)
  rest = count - positives.sum()
  return positives | _subset(background_key, assigned == assign.BACKGROUND, count, rest)


def slots(key: jax.Array, assigned: jax.Array, count: int, positive_fraction: float) -> Slots:
  """The sample of `drawn` in `count` slots; positives are within the first int(count * positive_fraction)."""
  number = assigned.shape[0]
  is_drawn = drawn(key, assigned, count, positive_fraction)
  index = jnp.arange(number)
  # Sorts by kind first and index second.
  rank = jnp.where(is_drawn, jnp.where(assigned >= 0, index, number + index), 2 * number)
  rank = jnp.sort(jnp.concatenate([rank, jnp.full(count, 2 * number)]))[:count]
  is_filled = rank < 2 * number
  return Slots(jnp.where(is_filled, rank % max(number, 1), 0), rank < number, is_filled)


def with_ground_truth(
  proposals: jax.Array, assigned: jax.Array, gt_boxes: jax.Array, gt_labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Adds objects in front of proposals, each as its own positive (mmdetection's `add_gt_as_proposals`).

  Args:
    proposals: boxes [N, 4].
    assigned: int32 [N].
    gt_boxes: boxes [G, 4], padded.
    gt_labels: int [G], negative where there is no object; those are ignored.

  Returns:
    Boxes float32 [G + N, 4]; assigned, int32 [G + N].
  """
  own = jnp.where(gt_labels >= 0, jnp.arange(gt_labels.shape[0]), assign.IGNORED)
  merged = jnp.concatenate([gt_boxes.astype(jnp.float32), proposals.astype(jnp.float32)])
  return merged, jnp.concatenate([own, assigned]).astype(jnp.int32)


def _subset(key, is_candidate, limit, count):
  """bool [N]: count (at most limit, which is static) of the candidates at random, all if there are fewer."""
  limit = min(limit, is_candidate.shape[0])
  numbers = jnp.where(is_candidate, jax.random.uniform(key, is_candidate.shape), -1)
  # Indices, not a threshold: among many thousand numbers some are equal.
  numbers, index = jax.lax.top_k(numbers, limit)
  is_taken = (numbers >= 0) & (jnp.arange(limit) < count)
  return jnp.zeros_like(is_candidate).at[index].set(is_taken)
