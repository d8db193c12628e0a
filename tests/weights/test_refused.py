"""Files that are not usable weights. Each error names the file, the problem and a remedy."""

import goldens
import numpy as np
import pytest
from safetensors.numpy import save_file

from mlpvision import weights


def refused(path, match, *args, **kwargs):
  with pytest.raises(weights.WeightsError, match=match) as error:
    weights.load(path, *args, **kwargs)
  assert str(error.value).startswith(str(path))
  assert isinstance(error.value, ValueError)


@pytest.fixture
def params():
  return goldens.read("mixer_npz")[1]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_empty_missing_and_other_files(tmp_path, suffix):
  path = tmp_path / f"file{suffix}"
  refused(path, "is neither a file nor the name of known weights")
  path.write_bytes(b"")
  refused(path, "is empty")
  path.write_text("These are not the weights that you are looking for.\n" * 9)
  refused(path, "not a .npz, .safetensors or .pth file: .* b'These are")
  path.write_text("\n<!DOCTYPE html><html>Sign in</html>")
  refused(path, "is a web page")
  path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n")
  refused(path, "git-lfs pointer")
  path.write_bytes(b"\x80\x02broken")
  refused(path, "is damaged")
  path.unlink()
  path.mkdir()
  refused(path, "is a directory")


@pytest.mark.parametrize("name", ["mixer_npz", "mixer_timm", "asmlp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated(tmp_path, name, share):
  path = goldens.write(tmp_path, name)
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  refused(path, "damaged")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_pth(tmp_path, share):
  for name in ("checkpoint", "checkpoint_legacy"):
    data = (goldens.DATA / "torch" / f"{name}.pth").read_bytes()
    path = tmp_path / f"{name}.pth"
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "damaged")


def test_typo_in_a_name_of_known_weights():
  refused("mixer_b16.goog_in1", "Did you mean mixer_b16.goog_in1k")


def test_typo_in_the_name_of_a_file(tmp_path):
  (tmp_path / "mixer.safetensors").touch()
  refused(tmp_path / "mixre.safetensors", f"Did you mean {tmp_path / 'mixer.safetensors'}?")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, params, bad):
  name = "MixerBlock_1/token_mixing/Dense_0/kernel"
  params[name][3, 4] = bad
  refused(goldens.write(tmp_path, "mixer_npz", params), f"{name} has 1 of 384 numbers")


def test_too_large_for_float32(tmp_path, params):
  params["stem/bias"] = params["stem/bias"].astype(np.float64) + 1e300
  refused(goldens.write(tmp_path, "mixer_npz", params), "stem/bias has 48 of 48 numbers that are NaN or infinite")


@pytest.mark.parametrize("dtype", [np.int32, np.complex64, np.bool_, "U8", "M8[s]"])
def test_wrong_dtype(tmp_path, params, dtype):
  params["stem/bias"] = np.ones(48).astype(dtype) if dtype != "M8[s]" else np.zeros(48, dtype)
  refused(goldens.write(tmp_path, "mixer_npz", params), "its array stem/bias is of type")


def test_objects(tmp_path, params):
  class Evil:
    def __reduce__(self):
      return (tmp_path / "executed").mkdir, ()

  params["stem/bias"] = np.array([Evil()], dtype=object)
  path = tmp_path / "objects.npz"
  np.savez(path, **params, allow_pickle=True)
  refused(path, "its array stem/bias contains Python objects")
  assert not (tmp_path / "executed").exists()


def test_other_doubles_load(tmp_path, params):
  params["stem/bias"] = params["stem/bias"].astype(np.float64)
  _, loaded, _ = weights.load(goldens.write(tmp_path, "mixer_npz", params))
  np.testing.assert_array_equal(loaded["stem"]["bias"], goldens.read("mixer_npz")[1]["stem/bias"])


def test_missing_head(tmp_path, params):
  path = goldens.write(tmp_path, "mixer_npz", {k: v for k, v in params.items() if not k.startswith("head")})
  refused(path, r"has no head \(classifier\)\nPass num_classes")
  assert weights.load(path, num_classes=4).info.head == "new"
  assert weights.load(path, num_classes=None).info.head == "none"


def test_unknown_model(tmp_path):
  save_file({"conv1.weight": np.ones((2, 3, 7, 7), np.float32)}, tmp_path / "resnet.safetensors")
  refused(tmp_path / "resnet.safetensors", "weights of no known model")
  save_file({}, tmp_path / "nothing.safetensors")
  refused(tmp_path / "nothing.safetensors", "no arrays")


def test_strange_and_missing_leaves(tmp_path, params):
  strange = {**params, "MixerBlock_0/gate/kernel": np.ones((2, 2), np.float32)}
  refused(goldens.write(tmp_path, "mixer_npz", strange), r"unknown arrays \(1\)\n  MixerBlock_0/gate/kernel")
  del params["MixerBlock_1/LayerNorm_0/bias"]
  refused(goldens.write(tmp_path, "mixer_npz", params), r"missing \(1\):\n  MixerBlock_1/LayerNorm_0/bias")
  del params["stem/kernel"]
  refused(goldens.write(tmp_path, "mixer_npz", params), "lacks .* the sizes of MlpMixer.*stem/kernel")


def test_wrong_axes(tmp_path):
  _, params, _ = goldens.read("asmlp")
  params["patch_embed.proj.weight"] = params["patch_embed.proj.weight"].reshape(24, -1)
  refused(goldens.write(tmp_path, "asmlp", params), r"patch_embed.proj.weight has shape \(24, 48\)")
  _, params, _ = goldens.read("mixer_npz")
  params["MixerBlock_0/token_mixing/Dense_0/kernel"] = np.ones(3, np.float32)
  refused(goldens.write(tmp_path, "mixer_npz", params), "MlpMixer, or they have other shapes")


@pytest.mark.parametrize("noted", ["[1]", "{", '{"options": 3}', '{"preprocessing": {"mean": 1}}'])
def test_broken_metadata(tmp_path, noted):
  path = tmp_path / "noted.safetensors"
  save_file(goldens.read("mixer_timm")[1], path, {"mlpvision": noted})
  refused(path, "its mlpvision metadata")


def test_without_what_tells_the_number_of_patches(tmp_path):
  """A ViT's position embedding: with a guess in its place, what is missing is still said."""
  _, params, _ = goldens.read("vit_timm")
  del params["pos_embed"]
  refused(goldens.write(tmp_path, "vit_timm", params), r"missing \(1\):\s+pos_embed", num_heads=4)


def test_a_head_of_one_dimension(tmp_path, params):
  """Named once: the file's name of it is ours."""
  params["head/kernel"] = params["head/kernel"][0]
  refused(goldens.write(tmp_path, "mixer_npz", params), r"\(1\):\s+head/kernel: \(10,\) in the file, \(48, 10\)")
