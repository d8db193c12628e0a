"""The feature pyramid network against mmdetection's, also where maps are not twice as large as the next."""

import pathlib

from flax.traverse_util import unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision.models.heads import fpn

_GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "data" / "fpn.npz"))


@pytest.fixture(scope="module")
def apply():
  flat = {}
  for name, array in _GOLDEN.items():
    if name.startswith("neck."):
      path, transform = fpn.TABLE.ours(name)
      flat[path] = transform(array)
  params = unflatten_dict(flat, sep="/")["neck"]
  return lambda maps: jax.jit(fpn.FPN(8).apply)({"params": params}, maps)


@pytest.mark.parametrize("kind", ["out", "odd_out"])
def test_levels_are_mmdetections(apply, kind):
  maps = [_GOLDEN[f"feature_{i}"].transpose(0, 2, 3, 1) for i in range(4)]
  if kind == "odd_out":
    maps = [x[:, :height, :width] for x, (height, width) in zip(maps, _GOLDEN["odd_shapes"], strict=True)]
  found = apply(tuple(map(jnp.asarray, maps)))
  assert len(found) == 5
  for i, level in enumerate(found):
    golden = _GOLDEN[f"{kind}_{i}"].transpose(0, 2, 3, 1)
    assert level.shape == golden.shape
    assert np.abs(level - golden).max() <= 1e-5 * np.abs(golden).max()
