"""PoolFormer's pooling and convolutions: what its values depend on, and sizes that its strides do not divide."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models
from mlpvision.models import layers, poolformer

_NORM, _CONV, _POOLING = layers.GroupNorm1, layers.nn.Conv, poolformer.pooling


def _counts_padding(x, cells=None):
  return layers.nn.avg_pool(x, (3, 3), padding="SAME") - x


_WRONG = {
  "padding is counted": (poolformer, "pooling", _counts_padding),
  "no identity is subtracted": (poolformer, "pooling", lambda x, cells=None: _POOLING(x, cells) + x),
  "epsilon": (layers, "GroupNorm1", lambda **options: _NORM(epsilon=1e-3, **options)),
  "one norm per position": (layers, "GroupNorm1", lambda **options: layers.LayerNorm(epsilon=1e-5, **options)),
  "SAME": (layers.nn, "Conv", lambda *args, **options: _CONV(*args, **options | {"padding": "SAME"})),
}


@pytest.mark.parametrize("wrong", _WRONG)
def test_wrong_forms_give_other_values(monkeypatch, wrong):
  goldens.loaded("poolformer")
  monkeypatch.setattr(*_WRONG[wrong])
  assert goldens.error_of_first_stage("poolformer") > 1e-4


def test_pooling():
  _, _, arrays = goldens.read("poolformer")
  x = arrays["out/block0/pooling_input"]
  found = jax.jit(poolformer.pooling)(x)
  np.testing.assert_allclose(found, arrays["out/block0/pooling"], atol=1e-5)
  plain = layers.nn.avg_pool(jnp.asarray(x), (3, 3), padding="SAME", count_include_pad=False) - x
  np.testing.assert_allclose(found, plain, atol=1e-5)


def test_any_image_size():
  """The stem's maps round down or up, as the original's; `features` pads images to whole patches."""
  model = models.create("poolformer_s12", depths=(1, 1, 1, 1), hidden_dim=(4, 4, 4, 4), num_classes=3)
  assert goldens.shapes(model, 37, 51) == goldens.shapes(model, 64)
  images = jax.ShapeDtypeStruct((1, 37, 51, 3), jnp.float32)
  maps, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, method="features"), images)
  assert [x.shape[1:3] for x in maps] == [(10, 13), (5, 7), (3, 4), (2, 2)]


def test_one_entry_per_stage():
  with pytest.raises(ValueError, match="tuples with one entry per stage, not hidden_dim=64"):
    goldens.shapes(models.create("poolformer_s12", hidden_dim=64), 32)
