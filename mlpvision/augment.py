"""What happens to a batch on the device, inside the compiled step."""

import jax
import jax.numpy as jnp


def normalize(images, mean, std):
  """uint8 [B, H, W, 3] -> float32, (pixels / 255 - mean) / std per channel."""
  mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
  return (images.astype(jnp.float32) / 255.0 - mean) / std


def random_flip(key, images, probability):
  """Mirrors each image [B, H, W, C] left to right with the given probability, independently."""
  if probability == 0.0:
    return images
  flip = jax.random.bernoulli(key, probability, (images.shape[0], 1, 1, 1))
  return jnp.where(flip, images[:, :, ::-1], images)
