"""Loading weights: the originals' values, the Mixer's layouts, sizes from shapes, heads."""

import logging

import goldens
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from mlpvision import models, weights


@pytest.mark.parametrize("name", goldens.GOLDENS)
def test_golden_file_gives_the_originals_numbers(name):
  meta, _, arrays = goldens.read(name)
  module, params, info = goldens.loaded(name)
  assert module == models.create(info.model_name, num_classes=meta["num_classes"], **info.overrides)
  assert info.head == "file"
  logits, maps = goldens.logits_and_maps(module, params, arrays["input"])
  assert goldens.relative_error(logits, arrays["out/logits"]) < 1e-5
  for key, expected in arrays.items():
    if key.startswith("out/stage"):
      assert goldens.relative_error(maps[int(key.removeprefix("out/stage"))], expected) < 1e-5
    elif key == "out/features" and len(maps) == 1:  # may start with the class token
      actual = np.asarray(maps[0]).reshape(len(expected), -1, expected.shape[-1])
      assert goldens.relative_error(actual, expected[:, -actual.shape[1] :]) < 1e-5


@pytest.mark.parametrize("layout", ["prefixed", "trained", "old", "pre_linen"])
def test_layouts_of_the_mixers_npz(tmp_path, layout):
  _, params, _ = goldens.read("mixer_npz")
  expected = goldens.ours(params)
  if layout == "prefixed":
    params = {f"params/{name}": array for name, array in params.items()}
  elif layout == "trained":
    params = {f"opt/target/{name}": array for name, array in params.items()} | {"opt/state/step": np.array(3)}
  elif layout == "old":
    params = dict(_old_layout(params))
  else:
    params = dict(_pre_linen(params))
  path = tmp_path / "mixer.npz"
  np.savez(path, **params)
  _, params, info = weights.load(path)
  assert info.naming == ("old npz" if layout == "old" else "npz")
  jax.tree.map(np.testing.assert_array_equal, params, expected)


def _old_layout(params):
  """The layout before the release: an MLP is one module, with axes of length 1; all classes share one numbering."""
  for name, array in params.items():
    name = name.replace("stem", "embedding").replace("pre_head_layer_norm", "Mixer/encoder_norm")
    name = name.replace("MixerBlock_", "Mixer/encoderblock_").replace("LayerNorm_1", "LayerNorm_2")
    for mixing in ("token_mixing", "channel_mixing"):
      for layer in (0, 1):
        for leaf in ("kernel", "bias"):
          name = name.replace(f"{mixing}/Dense_{layer}/{leaf}", f"{mixing}_phase_0/{leaf}{layer + 1}")
    yield name, array[None, None] if "_phase_0" in name else array


def _pre_linen(params):
  """One sequence of numbers for all submodules, as in Flax before linen."""
  for name, array in params.items():
    name = name.replace("LayerNorm_1", "LayerNorm_2").replace("MixerBlock_1", "MixerBlock_2")
    yield name.replace("MixerBlock_0", "MixerBlock_1"), array


def test_official_names_of_resmlp_and_swin(tmp_path):
  _, params, _ = goldens.read("resmlp_timm")
  names = (("stem.", "patch_embed."), ("linear_tokens.", "attn."), ("mlp_channels.", "mlp."), ("ls", "gamma_"))
  official = {}
  for name, array in params.items():
    for theirs, deit in names:
      name = name.replace(theirs, deit)
    official[name] = array.reshape(-1) if name.endswith(("alpha", "beta")) else array
  save_file(official, tmp_path / "resmlp.safetensors")
  _, loaded, info = weights.load(tmp_path / "resmlp.safetensors")
  assert info.naming == "official"
  jax.tree.map(np.testing.assert_array_equal, loaded, goldens.ours(params))

  _, params, _ = goldens.read("swin_timm")
  official = {name.replace("layers.1.downsample", "layers.0.downsample"): array for name, array in params.items()}
  official = {name.replace("head.fc", "head"): array for name, array in official.items()}
  official["layers.0.blocks.1.attn.relative_position_index"] = np.zeros((16, 16), np.int64)
  official["layers.0.blocks.1.attn_mask"] = np.zeros(1, np.float32)
  save_file(official, tmp_path / "swin.safetensors")
  _, loaded, info = weights.load(tmp_path / "swin.safetensors")
  assert info.naming == "official"
  jax.tree.map(np.testing.assert_array_equal, loaded, goldens.ours(params))
  # Also without the head, which has another name too: timm has no downsampling at the end of stage 0.
  body = {name: array for name, array in official.items() if not name.startswith("head")}
  save_file(body, tmp_path / "body.safetensors")
  assert weights.load(tmp_path / "body.safetensors", num_classes=None).info.naming == "official"


def test_heads_are_told_from_shapes_only_where_they_can_be(tmp_path):
  with pytest.raises(weights.WeightsError, match="num_heads"):
    weights.load(goldens.write(tmp_path, "vit_timm"))


def test_a_given_model_binds_its_sizes(tmp_path):
  path = goldens.write(tmp_path, "asmlp")
  with pytest.raises(weights.WeightsError) as error:
    weights.load(path, "asmlp_tiny")
  message = str(error.value)
  assert "does not match asmlp_tiny" in message
  assert "missing (" in message
  assert "of another shape (" in message
  assert "  layers.0.blocks.1.axial_shift.conv1.weight (stage_0_block_1/axial_shift/conv1/kernel)" in message
  assert "... and" in message
  assert len(message.splitlines()) < 50

  module, _, _ = weights.load(path, "asmlp_tiny", hidden_dim=24, depths=(1, 2, 1, 1), shift_size=3)
  assert module.shift_size == 3
  with pytest.raises(weights.WeightsError, match="weights of ASMLP .* not of mixer_b16"):
    weights.load(path, "mixer_b16")
  with pytest.raises(ValueError, match="did you mean asmlp_tiny"):
    weights.load(path, "asmlp_tin")
  with pytest.raises(ValueError, match="no option 'shift'"):
    weights.load(path, shift=3)


def test_a_missing_block_is_missing(tmp_path):
  _, params, _ = goldens.read("mixer_npz")
  fourfold = {name: array for name, array in params.items() if "Block_1" not in name}
  fourfold |= {name.replace("Block_1", "Block_3"): array for name, array in params.items() if "Block_1" in name}
  path = tmp_path / "mixer.npz"
  np.savez(path, **fourfold)
  with pytest.raises(weights.WeightsError, match=r"missing \(24\):\n  MixerBlock_1/"):
    weights.load(path)


@pytest.mark.parametrize("name", goldens.GOLDENS)
def test_another_number_of_classes_makes_a_new_head(tmp_path, caplog, name):
  path, options = goldens.write(tmp_path, name), goldens.GOLDENS[name][1]
  _, original, _ = goldens.loaded(name)
  with caplog.at_level(logging.WARNING, logger="absl"):
    module, params, info = weights.load(path, num_classes=7, **options)
  assert "has a head of 10 classes; the head of 7 classes" in caplog.text
  assert info.head == "new"
  assert module.num_classes == 7
  assert params["head"]["kernel"].shape == (params["head"]["kernel"].shape[0], 7)
  bodies = [{key: value for key, value in tree.items() if key != "head"} for tree in (params, original)]
  jax.tree.map(np.testing.assert_array_equal, *bodies)


def test_no_classes_gives_features(tmp_path):
  _, _, arrays = goldens.read("asmlp")
  module, params, info = weights.load(goldens.write(tmp_path, "asmlp"), num_classes=None)
  assert info.head == "none"
  assert "head" not in params
  assert jax.eval_shape(module.apply, {"params": params}, arrays["input"]).shape == (2, 192)


def test_loaded_arrays_do_not_depend_on_the_file():
  _, params, _ = goldens.loaded("asmlp")
  for array in jax.tree.leaves(params):
    assert array.dtype == np.float32
    assert array.flags.owndata
    assert array.flags.writeable
    assert array.flags.c_contiguous


def test_known_entries_are_of_known_models():
  for name, entry in weights.KNOWN.items():
    models.create(entry.model, num_classes=entry.num_classes, **entry.overrides)
    assert name == entry.name
    assert entry.url is None or entry.url.startswith("https://")
    assert entry.page.startswith("https://")
    assert entry.top1 is None or 60 < entry.top1 < 90
    assert entry.top1 is None or entry.num_classes == 1000
    assert entry.preprocessing.interpolation in ("bicubic", "bilinear")


def test_the_docs_list_every_known_entry():
  text = (goldens.DATA.parents[1] / "docs" / "weights.md").read_text()
  for entry in weights.KNOWN.values():
    assert f"| `{entry.name}` | `{entry.model}` | {entry.num_classes:,} |" in text
    assert entry.url is None or entry.url in text
