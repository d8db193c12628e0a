"""S2-MLPv2: what the paper leaves open as options, and forms that public ports have and that give other values."""

import functools

import goldens
import jax.numpy as jnp
import numpy as np
import pytest

from docs.tools import models_page
from mlpvision import models
from mlpvision.models import layers, s2mlpv2, split_attention
from mlpvision.models.shift import spatial_shift

_NORM = layers.LayerNorm
_VARIANTS = {"sum": dict(pool="sum"), "no_final_norm": dict(final_norm=False)}


@pytest.mark.parametrize("name", _VARIANTS)
def test_options(name):
  module, params, _ = goldens.loaded("s2mlpv2")
  _, _, arrays = goldens.read("s2mlpv2")
  params = params if module.clone(**_VARIANTS[name]).final_norm else {k: v for k, v in params.items() if k != "norm"}
  found = goldens.apply(module.clone(**_VARIANTS[name]), params, arrays["input"])
  assert goldens.relative_error(found, arrays[f"out/variant/{name}/logits"]) < 1e-5


def test_exchanging_two_parts_is_the_other_reading_of_the_axes():
  """Rows first, as in public copies: the first two thirds of fc1's outputs and of the weights change places."""
  module, params, _ = goldens.loaded("s2mlpv2")
  _, _, arrays = goldens.read("s2mlpv2")

  def exchange(array):
    one, two, three = np.split(array, 3, -1)
    return np.concatenate([two, one, three], -1)

  other = dict(params)
  for name in other:
    if name.startswith("stage_"):
      mixing = dict(other[name]["mixing"])
      mixing["fc1"] = {leaf: exchange(array) for leaf, array in mixing["fc1"].items()}
      last = {"kernel": exchange(mixing["reweight"]["Dense_1"]["kernel"])}
      mixing["reweight"] = mixing["reweight"] | {"Dense_1": last}
      other[name] = other[name] | {"mixing": mixing}
  found = goldens.apply(module, other, arrays["input"])
  assert goldens.relative_error(found, arrays["out/variant/rows_first/logits"]) < 1e-5


def _in_place(x, directions, cells=None):
  """The common port: each row of a "+" quarter is copied from the one before, which has been overwritten."""
  width = x.shape[-1] // 4
  parts = []
  for k, (dy, dx) in enumerate(directions):
    part = x[..., k * width : (k + 1) * width]
    smeared = jnp.broadcast_to(part[:, :1] if dy else part[:, :, :1], part.shape)
    parts.append(smeared if dy + dx > 0 else spatial_shift(part, ((dy, dx),)))
  return jnp.concatenate(parts, -1)


class _Other(split_attention.SplitAttention):
  def __post_init__(self):
    object.__setattr__(self, "layout", "channel")
    super().__post_init__()


_WRONG = {
  "shifts in place": (s2mlpv2, "spatial_shift", _in_place, 1e-2),
  "zero border": (s2mlpv2, "spatial_shift", functools.partial(spatial_shift, border="zero"), 1e-2),
  "one shift twice": (s2mlpv2, "_SHIFTS", s2mlpv2._SHIFTS[:1] * 2, 1e-2),
  "no shift": (s2mlpv2, "spatial_shift", lambda x, directions, cells: x, 1e-2),
  "the other layout": (s2mlpv2, "SplitAttention", _Other, 1e-2),
  "epsilon": (layers, "LayerNorm", lambda **o: _NORM(**o | {"epsilon": 1e-6}), 2e-5),
  "tanh": (layers.forms, "gelu", lambda x: layers.nn.gelu(x, approximate=True), 2e-5),
}


@pytest.mark.parametrize("wrong", _WRONG)
def test_wrong_forms_give_other_values(monkeypatch, wrong):
  goldens.loaded("s2mlpv2")
  *target, error = _WRONG[wrong]
  monkeypatch.setattr(*target)
  assert goldens.error_of_first_stage("s2mlpv2") > error


@pytest.mark.parametrize(("reduction", "parameters"), [(2, 27_325_288), (1, 31_748_968)])
def test_a_wider_split_attention_is_not_the_papers(reduction, parameters):
  """The paper's 25M is that of 4: test_cost. All public copies have 1."""
  model = models.create("s2mlpv2_small7", reduction=reduction)
  assert models_page.counted(model, 28)["parameters"] == parameters


def test_only_four_stages_of_patches_of_four_make_a_pyramid():
  with pytest.raises(ValueError, match="stride 7 and 14 gives no feature pyramid"):
    models.backbone("s2mlpv2_small7")
  wide = dict(patch_size=4, hidden_dim=(8,) * 4, depths=(1,) * 4, mlp_ratio=(3.0,) * 4)
  assert models.backbone("s2mlpv2_small7", **wide).feature_strides == (4, 8, 16, 32)
