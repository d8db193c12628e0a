"""Swin's padded and shrunk windows, compared with timm's values."""

import goldens
import jax
import numpy as np
import pytest

from mlpvision.models import swin


def test_maps_that_windows_do_not_divide():
  """Maps of 18x11, 9x6 and 5x3 with windows of 4x4: padded, and in the last stage shrunk along one axis."""
  meta, state, arrays = goldens.read("swin_timm_odd")
  for block in range(2):  # pads timm's table for 4x3 windows to one for 4x4
    name = f"layers.2.blocks.{block}.attn.relative_position_bias_table"
    state[name] = np.pad(state[name].reshape(7, 5, 4), ((0, 0), (1, 1), (0, 0))).reshape(49, 4)
  sizes = dict(depths=tuple(meta["depths"]), num_heads=tuple(meta["num_heads"]), window_size=meta["window_size"])
  model = swin.Swin(num_classes=meta["num_classes"], hidden_dim=meta["embed_dim"], **sizes)
  params = goldens.ours(state)
  assert goldens.shapes(model, *meta["image_size"]) == jax.tree.map(lambda x: x.shape, params)
  logits, maps = goldens.logits_and_maps(model, params, arrays["input"])
  assert goldens.relative_error(logits, arrays["out/logits"]) < 1e-5
  for stage, features in enumerate(maps):
    assert features.shape == arrays[f"out/stage{stage}"].shape
    assert goldens.relative_error(features, arrays[f"out/stage{stage}"]) < 1e-5


def test_heads_must_be_given_for_every_stage():
  with pytest.raises(ValueError, match="one entry per stage"):
    goldens.shapes(swin.Swin(depths=(2, 2)), 64)
