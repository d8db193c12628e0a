"""RoIAlign against mmcv's and mmdetection's numbers, and against its definition where a RoI takes many samples."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision.models.detection import roi_align

_GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "data" / "roialign.npz"))
_KINDS = [(7, 0), (7, 1), (7, 2), (14, 0)]


def _batched(rois):
  """([2, n, 4], (image, index)): each RoI on both images, and where to find it on its own."""
  return np.stack([rois[:, 1:]] * 2), (rois[:, 0].astype(int), np.arange(len(rois)))


@pytest.fixture(scope="module")
def found():
  """{name: values [n, bins, bins, C] or a gradient}, compiled at once."""
  rois, own = _batched(_GOLDEN["rois"])
  level_rois, level_own = _batched(_GOLDEN["level_rois"])
  maps = [_GOLDEN[f"level_{i}"].transpose(0, 2, 3, 1) for i in range(4)]

  def values(x, bins, samples):
    return roi_align.roi_align(x, rois, bins, 1 / 4, samples)[own]

  def compute(x):
    out = {f"{bins}_{samples}": values(x, bins, samples) for bins, samples in _KINDS}
    for samples in (0, 2):
      cotangent = _GOLDEN[f"cotangent_7_sampling{samples}"].transpose(0, 2, 3, 1)
      out[f"grad_{samples}"] = jax.grad(lambda x, s=samples, c=cotangent: jnp.sum(values(x, 7, s) * c))(x)
    out["levels"] = roi_align.roi_levels(level_rois, 4)[level_own]
    out["multilevel"] = roi_align.multilevel_roi_align(maps, level_rois, 7, (4, 8, 16, 32))[level_own]
    return out

  return jax.jit(compute)(_GOLDEN["x"].transpose(0, 2, 3, 1))


@pytest.mark.parametrize(("bins", "samples"), _KINDS)
def test_values_are_mmcvs(found, bins, samples):
  golden = _GOLDEN[f"out_{bins}_sampling{samples}"].transpose(0, 2, 3, 1)
  np.testing.assert_allclose(found[f"{bins}_{samples}"], golden, rtol=0, atol=2e-5)


@pytest.mark.parametrize("samples", [0, 2])
def test_gradients_are_mmcvs(found, samples):
  golden = _GOLDEN[f"grad_7_sampling{samples}"].transpose(0, 2, 3, 1)
  np.testing.assert_allclose(found[f"grad_{samples}"], golden, rtol=0, atol=2e-5)


def test_levels_are_mmdetections(found):
  np.testing.assert_array_equal(found["levels"], _GOLDEN["level_index"])
  golden = _GOLDEN["level_out_7"].transpose(0, 2, 3, 1)
  np.testing.assert_allclose(found["multilevel"], golden, rtol=0, atol=2e-5)


def test_a_box_beside_the_border_of_two_levels():
  sides = np.float32([0, 1, 111.9, 112, 223.9, 224, 447.9, 448, 5000])
  rois = np.stack([0 * sides, 0 * sides, sides, sides], -1)
  np.testing.assert_array_equal(roi_align.roi_levels(rois, 4), [0, 0, 0, 1, 1, 2, 2, 3, 3])


def _by_definition(start, end, size, bins, samples):
  """`axis_weights`, one sample after the other, in float32 and mmcv's order of operations."""
  weights = np.zeros((bins, size))
  bin_size = (end - start) / np.float32(bins)
  count = samples or math.ceil(bin_size)
  for bin_ in range(bins):
    for sample in range(count):
      position = start + bin_ * bin_size + np.float32(sample + 0.5) * bin_size / np.float32(count)
      if -1 <= position <= size:
        position = min(max(position, 0), size - 1)
        low = int(position)
        weights[bin_, low] += (low + 1 - position) / count
        if position > low:
          weights[bin_, low + 1] += (position - low) / count
  return weights


@pytest.mark.parametrize(("size", "bins", "samples"), [(1, 3, 0), (9, 7, 0), (9, 5, 3)])
def test_weights_are_exact_for_any_number_of_samples(size, bins, samples):
  rng = np.random.default_rng(size)
  start = np.float32(rng.uniform(-2 * size, size, 40))
  end = np.float32(start + rng.uniform(0, 1, 40) ** 3 * 300)
  # Samples on the borders -1 and size, which are inside; an empty RoI; a whole number of samples, beside rounding.
  start[:4], end[:4] = [-10.5, -3.5, 5, -2.75], [size + 9.5, size + 2.5, 5, 18.25]
  golden = [_by_definition(*ends, size, bins, samples) for ends in zip(start, end, strict=True)]
  found = jax.jit(lambda start, end: roi_align.axis_weights(start, end, size, bins, samples))(start, end)
  np.testing.assert_allclose(found, golden, rtol=0, atol=3e-5)


def test_values_have_the_maps_dtype():
  x = jax.ShapeDtypeStruct((2, 6, 4, 3), jnp.bfloat16)
  rois = jax.ShapeDtypeStruct((2, 5, 4), jnp.float32)
  out = jax.eval_shape(lambda x, rois: roi_align.multilevel_roi_align([x, x], rois, 7, (4, 8)), x, rois)
  assert (out.shape, out.dtype) == ((2, 5, 7, 7, 3), jnp.bfloat16)
