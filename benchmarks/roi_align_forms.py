"""Compares forms of RoIAlign by the TPU compiler's estimates; needs libtpu (mlpvision[plan]), and no TPU.

  python -m benchmarks.roi_align_forms

Each is compiled for one v5e chip, forward and backward, with the maps of two images of 800x1344, 256 channels, in
bfloat16: for the box head (512 RoIs of an image, 7x7 bins) and for the mask head (128, 14x14). The adaptive forms are
exact; "gathers" takes 2x2 samples in each bin.
"""

import functools
import os

os.environ["JAX_PLATFORMS"] = "cpu"  # does not occupy an attached TPU

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from mlpvision.models.detection import roi_align
from mlpvision.plan import chips, counts, hlo

_STRIDES = (4, 8, 16, 32)
_CLOCK = 1.5e9


def _weights(x, rois, bins, stride):
  x1, y1, x2, y2 = jnp.moveaxis(rois / stride - 0.5, -1, 0)
  return roi_align.axis_weights(y1, y2, x.shape[1], bins), roi_align.axis_weights(x1, x2, x.shape[2], bins)


def by_products(maps, rois, bins, first):
  """Two matrix products, the `first` axis ("rows" or "columns") before the other."""
  levels, total = roi_align.roi_levels(rois, len(maps))[..., None, None], 0
  for i, (x, stride) in enumerate(zip(maps, _STRIDES, strict=True)):
    rows, columns = _weights(x, rois, bins, stride)
    rows, columns = jnp.where(levels == i, rows, 0).astype(x.dtype), columns.astype(x.dtype)
    if first == "rows":
      total += jnp.einsum("bnqw,bnpwc->bnpqc", columns, jnp.einsum("bnph,bhwc->bnpwc", rows, x))
    else:
      total += jnp.einsum("bnph,bnqhc->bnpqc", rows, jnp.einsum("bnqw,bhwc->bnqhc", columns, x))
  return total


def by_gathers(maps, rois, bins, samples=2):
  """Four gathers for each of samples x samples points in a bin, from one table of all levels."""
  widths = jnp.array([x.shape[2] for x in maps])
  heights = jnp.array([x.shape[1] for x in maps])
  starts = jnp.array(np.cumsum([0] + [x.shape[1] * x.shape[2] for x in maps[:-1]]))
  table = jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps], 1)
  level = roi_align.roi_levels(rois, len(maps))
  scaled = rois / jnp.array(_STRIDES)[level][..., None] - 0.5
  steps = (jnp.arange(bins * samples) + 0.5) / (bins * samples)

  def axis(start, end, size):
    at = jnp.clip(start[..., None] + (end - start)[..., None] * steps, 0, size[..., None] - 1)
    low = jnp.floor(at).astype(jnp.int32)
    return low, jnp.minimum(low + 1, size[..., None] - 1), at - low

  top, bottom, fy = axis(scaled[..., 1], scaled[..., 3], heights[level])
  left, right, fx = axis(scaled[..., 0], scaled[..., 2], widths[level])
  total = 0
  for y, wy in ((top, 1 - fy), (bottom, fy)):
    for x, wx in ((left, 1 - fx), (right, fx)):
      index = starts[level][..., None, None] + y[..., :, None] * widths[level][..., None, None] + x[..., None, :]
      values = jax.vmap(lambda table, index: table[index])(table, index)
      total += values * (wy[..., :, None] * wx[..., None, :])[..., None].astype(values.dtype)
  shape = (*total.shape[:2], bins, samples, bins, samples, total.shape[-1])
  return total.reshape(shape).mean((3, 5))


_FORMS = {
  "products, rows first": functools.partial(by_products, first="rows"),
  "products, columns first": functools.partial(by_products, first="columns"),
  "gathers, 2x2 samples": by_gathers,
  "ours": lambda maps, rois, bins: roi_align.multilevel_roi_align(maps, rois, bins, _STRIDES),
}


def main() -> None:
  """Prints a table."""
  mesh = Mesh(np.array(chips.devices("v5e:2x2"))[:1], ("x",))
  place = NamedSharding(mesh, PartitionSpec())
  maps = tuple(
    jax.ShapeDtypeStruct((2, -(-800 // s), -(-1344 // s), 256), jnp.bfloat16, sharding=place) for s in _STRIDES
  )
  print(f"{'form':28}{'head':8}{'ms':>8}{'HBM GB':>9}")
  for head, count, bins in (("box", 512, 7), ("mask", 128, 14)):
    rois = jax.ShapeDtypeStruct((2, count, 4), jnp.float32, sharding=place)
    out = jax.ShapeDtypeStruct((2, count, bins, bins, 256), jnp.bfloat16, sharding=place)
    for name, form in _FORMS.items():

      def gradient(maps, rois, cotangent, form=form, bins=bins):
        values, back = jax.vjp(lambda maps: form(maps, rois, bins), maps)
        return values, back(cotangent.astype(values.dtype))

      compiled = jax.jit(gradient).lower(maps, rois, out).compile()
      found = counts.count(hlo.parse(compiled.as_text()))
      print(f"{name:28}{head:8}{found.cycles / _CLOCK * 1e3:8.1f}{found.hbm_bytes / 1e9:9.1f}", flush=True)


if __name__ == "__main__":
  main()
