"""FF's grid of patches. Its values are tested in tests/weights, its sizes and its contract in test_contract.py."""

import goldens
import jax
import pytest

from mlpvision.models import ff


@pytest.mark.parametrize(("height", "width"), [(40, 40), (64, 16)])
def test_other_grid_is_refused(height, width):
  meta, params, _ = goldens.read("ff")
  sizes = dict(patch_size=meta["patch_size"], num_blocks=meta["depth"], hidden_dim=meta["embed_dim"])
  model = ff.FF(num_classes=meta["num_classes"], **sizes)
  images = jax.numpy.zeros((1, height, width, 3))
  with pytest.raises(ValueError, match=f"for 4x4 patches of 8x8 pixels, the images have {height // 8}x{width // 8}"):
    jax.eval_shape(model.apply, {"params": goldens.ours(params)}, images)
