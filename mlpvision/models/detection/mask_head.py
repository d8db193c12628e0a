"""The mask head (He et al., arXiv 1703.06870), as mmdetection's `FCNMaskHead`, and its loss."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models.detection import masks
from mlpvision.models.detection.box_head import RoIs, of_class
from mlpvision.models.detection.rpn import binary_cross_entropy
from mlpvision.models.pyramid import Upsampling

BINS = 14  # of a RoI along each axis; the maps have twice as many
_CONVS = 4


class MaskHead(nn.Module):
  """Pooled RoIs [..., 14, 14, C] -> float32 logits [..., 28, 28, K]: four 3x3 convolutions, upsampling, classifier."""

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    lead, channels = x.shape[:-3], x.shape[-1]
    x = x.reshape(-1, *x.shape[-3:])
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    for i in range(_CONVS):
      x = nn.relu(
        nn.Conv(channels, (3, 3), padding=1, kernel_init=init, dtype=self.dtype, name=f"convs_{i}")(x)
      )  # fmt: skip
    # PyTorch's fan_out of a transposed convolution counts the inputs.
    of_upsampling = nn.initializers.variance_scaling(0.5, "fan_in", "normal", in_axis=0, out_axis=(1, 2, 3))
    x = nn.relu(Upsampling(channels, self.dtype, of_upsampling, name="upsample")(x))
    x = nn.Dense(self.num_classes, kernel_init=init, name="conv_logits")(x.astype(jnp.float32))
    return x.reshape(*lead, *x.shape[1:])


def loss(logits: jax.Array, rois: RoIs, objects: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
  """(sum over the positive RoIs of the mean binary cross-entropy of their class's map, number of positive RoIs).

  Args:
    logits: float32 [B, n, 28, 28, K].
    rois: of a batch; n of each image.
    objects: "boxes" float32 [B, G, 4], and "masks" uint8 [B, G, R, R], each object's in the frame of its own box, or
      "bitmaps" uint8 [B, G, H, W] of ones and zeros, in the frame of the image.
  """
  size = logits.shape[2]
  if "bitmaps" in objects:
    targets = jax.vmap(lambda *of: masks.targets_from_bitmaps(*of, size))(objects["bitmaps"], rois.boxes, rois.objects)
  else:
    of_image = objects["masks"], objects["boxes"], rois.boxes, rois.objects
    targets = jax.vmap(lambda *of: masks.targets_from_crops(*of, size))(*of_image)
  own = of_class(jnp.moveaxis(logits, -1, 2), jnp.minimum(rois.labels, logits.shape[-1] - 1))
  values = binary_cross_entropy(own, jax.lax.stop_gradient(targets)).mean((-2, -1))
  return jnp.where(rois.is_positive, values, 0).sum(), rois.is_positive.sum(dtype=jnp.float32)
