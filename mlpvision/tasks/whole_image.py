"""Segments whole images of any size: at several scales, mirrored, or window by window, at the labels' own size.

Images are in canvases, so that a batch has one shape; `sizes` are the (height, width) that each image fills.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mlpvision import augment
from mlpvision.models.heads import interpolation

_ROWS = 64  # of the label map that are computed at a time: with 150 classes, the whole would take gigabytes


def normalized(images: jax.Array, sizes: jax.Array, config: ml_collections.ConfigDict) -> jax.Array:
  """uint8 [B, H, W, 3] -> float32, normalized, and 0 beyond the sizes int32 [B, 2]."""
  images = augment.normalize(images, config.data.mean, config.data.std)
  return jnp.where(interpolation.inside(images.shape[1:3], sizes), images, 0.0)


def predict(
  apply: Callable[..., jax.Array], batch: Mapping[str, Any], config: ml_collections.ConfigDict
) -> tuple[jax.Array, int]:
  """(the class of each pixel, int32 [b, H, W], number of classes).

  The logits are resized to the image's size and then to the label's, as in mmsegmentation; with several scales or
  mirrored images, the probabilities are averaged there (its `aug_test`).

  batch: {"images": uint8 [b, H_k, W_k, 3] per scale, "sizes": int32 [b, 2] per scale, "label": [b, H, W], "label_size":
    int32 [b, 2]}.
  config: data.mean and data.std, eval.mode, stride and flip, and data.image_size, of windows.
  """
  shape, label_sizes = batch["label"].shape[1:], batch["label_size"]
  slides, flips = config.eval.get("mode", "whole") == "slide", config.eval.get("flip", False)
  views = []
  for images, sizes in zip(batch["images"], batch["sizes"], strict=True):
    images = normalized(images, sizes, config)
    for mirrored in (False, True)[: 1 + flips]:
      x = _mirrored(images, sizes) if mirrored else images
      if slides:
        logits = _slide(apply, x, sizes, config)
        rows, columns = interpolation.matrices(logits.shape[1:3], shape, sizes, label_sizes)
      else:
        logits, cells = apply(x, sizes=sizes)
        of_image = interpolation.matrices(logits.shape[1:3], x.shape[1:3], cells, sizes)
        of_label = interpolation.matrices(x.shape[1:3], shape, sizes, label_sizes)
        rows, columns = (jnp.matmul(b, a, precision="highest") for a, b in zip(of_image, of_label, strict=True))
      if mirrored:
        columns = _mirrored(columns[..., None], label_sizes, axis=1)[..., 0]
      views.append((logits, rows, columns))
  return _classes(views, shape[0]), views[0][0].shape[-1]


def _mirrored(x, sizes, axis=2):
  """Reverses the first sizes[:, 1] places of an axis of [B, H, W, C]."""
  position = jnp.arange(x.shape[axis])
  source = jnp.where(position < sizes[:, 1:], sizes[:, 1:] - 1 - position, position)
  index = source[:, None, :, None] if axis == 2 else source[:, :, None, None]
  return jnp.take_along_axis(x, index, axis)


def _classes(views, height):
  """int32 [b, H, W]: the classes with the highest mean probability, a few rows at a time."""
  blocks = -(-height // _ROWS)

  def of_rows(block):
    total = None
    for logits, rows, columns in views:
      part = jax.lax.dynamic_slice_in_dim(rows, block * _ROWS, _ROWS, 1)
      values = interpolation.apply(logits, part, columns)
      values = jax.nn.softmax(values) if len(views) > 1 else values
      total = values if total is None else total + values
    return total.argmax(-1)

  padding = ((0, 0), (0, blocks * _ROWS - height), (0, 0))
  views = [(logits, jnp.pad(rows, padding), columns) for logits, rows, columns in views]
  found = jnp.moveaxis(jax.lax.map(of_rows, jnp.arange(blocks)), 0, 1)
  return found.reshape(found.shape[0], blocks * _ROWS, -1)[:, :height]


def _slide(apply, images, sizes, config):
  """float32 logits [b, H, W, K]: the mean over windows of data.image_size, eval.stride apart, the last one inside."""
  window, (height, width) = config.data.image_size, images.shape[1:3]
  images = jnp.pad(images, ((0, 0), (0, max(0, window - height)), (0, max(0, window - width)), (0, 0)))
  canvas = images.shape[1:3]
  steps = [range(-(-(side - window) // stride) + 1) for side, stride in zip(canvas, config.eval.stride, strict=True)]
  places = [(y, x) for y in steps[0] for x in steps[1]]

  def add(total, place):
    # Of an image that needs fewer windows than its canvas, some would be the last ones again.
    wanted = place * jnp.asarray(config.eval.stride)
    start = jnp.clip(jnp.minimum(wanted, sizes - window), 0)
    is_new = (place == 0) | (wanted - jnp.asarray(config.eval.stride) + window < sizes)
    cut = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), (window, window, 3)))
    part = jnp.minimum(sizes - start, window)
    logits, cells = apply(cut(images, start), sizes=part)
    logits = interpolation.bilinear(logits, (window, window), cells, part)
    logits = jnp.concatenate([logits, jnp.ones_like(logits[..., :1])], -1) * is_new.all(-1)[:, None, None, None]
    logits = jnp.where(interpolation.inside((window, window), part), logits, 0.0)

    def put(total, values, at):
      old = jax.lax.dynamic_slice(total, (*at, 0), values.shape)
      return jax.lax.dynamic_update_slice(total, old + values, (*at, 0))

    return jax.vmap(put)(total, logits, start), None

  logits, _ = jax.eval_shape(lambda x: apply(x, sizes=sizes), images[:, :window, :window])
  total = jnp.zeros((len(images), *canvas, logits.shape[-1] + 1), jnp.float32)
  total, _ = jax.lax.scan(add, total, jnp.asarray(np.array(places)))
  return (total[..., :-1] / jnp.maximum(total[..., -1:], 1))[:, :height, :width]
