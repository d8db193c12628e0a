"""Losses per image: float32 logits [B, K] and targets [B, K] that sum to 1 -> float32 [B]."""

import jax
import optax


def softmax(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Softmax cross-entropy."""
  return optax.softmax_cross_entropy(logits, targets)


def sigmoid(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Binary cross-entropy, summed over the classes (as in the JAX recipe of Mixer)."""
  return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)


LOSSES = {"softmax": softmax, "sigmoid": sigmoid}


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
  """int [B] -> float32 [B, K]: smoothing / K, plus 1 - smoothing at the label (arXiv 1512.00567, Sec. 7)."""
  return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)
