"""Receptive fields, saliency and feature maps: arrays over the image, from gradients and activations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mlpvision.models import shift


def noise(count: int, size: int) -> jax.Array:
  """Random images float [count, size, size, 3]."""
  return jax.random.normal(jax.random.key(0), (count, size, size, 3))


def receptive_fields(name: str, model: nn.Module, size: int) -> dict[str, np.ndarray]:
  """{label: `receptive_field`} of an untrained model, for each shift that its family can have; else {name: ...}."""
  models = {name: model}
  if hasattr(model, "directions"):
    names = ("none", "up", "up_down", "up_right", "four", "eight")
    models = {x: model.clone(directions=x) for x in names if model.hidden_dim % len(shift.DIRECTIONS[x]) == 0}
  elif hasattr(model, "shift_size"):
    models = {f"shift size {x}": model.clone(shift_size=x) for x in (1, 3, 5, 7)}
  images = noise(2, size)
  params = jax.jit(model.init)(jax.random.key(1), images)["params"]  # they do not depend on the shifts
  return {label: receptive_field(shifted, params, images) for label, shifted in models.items()}


def receptive_field(model: nn.Module, params: Mapping[str, Any], images: jax.Array) -> np.ndarray:
  """The effective receptive field of the center of the last feature map (Luo et al., arXiv 1701.04128).

  Args:
    model: a module with `features`.
    params: its parameters.
    images: float [B, H, W, 3], normalized; noise suffices for an untrained model, photos are better for a trained one.

  Returns:
    float [H, W] with sum 1: the mean influence of each pixel on the features at the center.
  """

  def center(images):
    features = model.apply({"params": params}, images, method="features")[-1]
    # A random projection of the channels: their plain sum is constant after a layer norm.
    weights = jax.random.normal(jax.random.key(0), features.shape[-1:])
    return (features[:, features.shape[1] // 2, features.shape[2] // 2] @ weights).sum()

  field = np.asarray(jnp.abs(jax.jit(jax.grad(center))(images)).mean((0, 3)), np.float64)
  return field / max(field.sum(), np.finfo(float).tiny)


def radius(field: np.ndarray, share: float) -> int:
  """Side in pixels of the smallest square around the center that contains this share of the field."""
  height, width = field.shape
  y, x = height // 2, width // 2
  for half in range(max(height, width)):
    if field[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1].sum() >= share:
      return 2 * half + 1
  return max(height, width)


def saliency(model: nn.Module, params: Mapping[str, Any], image: jax.Array | np.ndarray, label: int) -> np.ndarray:
  """The influence of each pixel on a class: the gradient of its logit (Simonyan et al., arXiv 1312.6034, Sec. 3).

  Averaged over 16 noisy copies of the image, to reduce noise (Smilkov et al., arXiv 1706.03825).

  Args:
    model, params: a classifier.
    image: float [H, W, 3], normalized.
    label: index of the class.

  Returns:
    float [H, W], the largest absolute value over the channels.
  """
  return np.asarray(compiled_saliency(model)(params, image, label))


def compiled_saliency(model: nn.Module) -> Callable[..., jax.Array]:
  """`saliency` as a function of (params, image, label) that is compiled once, for many images of one size."""

  def logit(images, params, label):
    return model.apply({"params": params}, images)[:, label].sum()

  @jax.jit
  def heat(params, image, label):
    noise = 0.15 * (image.max() - image.min()) * jax.random.normal(jax.random.key(0), (16, *image.shape))
    return jnp.abs(jax.grad(logit)(image[None] + noise, params, label)).mean(0).max(-1)

  return heat


def feature_colors(model: nn.Module, params: Mapping[str, Any], image: np.ndarray) -> list[np.ndarray]:
  """The `colors` of each stage's feature map for one image."""
  return colors(compiled_features(model)(params, image))


def compiled_features(model: nn.Module) -> Callable[..., tuple[jax.Array, ...]]:
  """The feature maps [1, h, w, C] of an image as a function of (params, image) that is compiled once."""
  return jax.jit(lambda params, image: model.apply({"params": params}, image[None], method="features"))


def colors(maps: Sequence[jax.Array]) -> list[np.ndarray]:
  """The first three principal components of each feature map [1, h, w, C]: float [h, w, 3] in [0, 1]."""
  pictures = []
  for features in maps:
    rows = np.asarray(features[0], np.float64).reshape(-1, features.shape[-1])
    rows = rows - rows.mean(0)
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    components = (left * values)[:, :3]
    low, high = np.percentile(components, (2, 98), axis=0)
    pictures.append(np.clip((components - low) / (high - low + 1e-12), 0, 1).reshape(*features.shape[1:3], -1))
  return pictures
