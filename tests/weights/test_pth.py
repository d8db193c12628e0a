"""torch.save files, read without torch; see tests/data/torch/README.md."""

import io
import os
import pickle
import pickletools
import zipfile

import goldens
import numpy as np
import pytest

from mlpvision import weights
from mlpvision.weights import pth

TORCH = goldens.DATA / "torch"


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint_legacy"])
def test_reads_a_checkpoints_state_dict(name):
  tensors = pth.read(TORCH / f"{name}.pth")
  with np.load(TORCH / "resmlp.npz") as expected:
    assert set(tensors) == set(expected.files)
    for key in expected.files:
      np.testing.assert_array_equal(tensors[key].numpy(), expected[key])
      assert tensors[key].numpy().dtype == np.float32


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint_legacy", "halves"])
def test_loads(name):
  module, params, info = weights.load(TORCH / f"{name}.pth")
  assert info.naming == "official"
  assert (module.num_blocks, module.hidden_dim, module.patch_size, module.num_classes) == (1, 8, 4, 3)
  with np.load(TORCH / "resmlp.npz") as expected:
    tolerance = dict(rtol=1e-2, atol=1e-2) if name == "halves" else dict(rtol=0)
    np.testing.assert_allclose(params["head"]["kernel"], expected["head.weight"].T, **tolerance)
    kernel = params["block_0"]["channel_mixing"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(kernel, expected["blocks.0.mlp.fc1.weight"].T, **tolerance)
  assert kernel.dtype == np.float32


def test_refuses_a_whole_module():
  with pytest.raises(weights.WeightsError, match=r"refers to torch\.nn\.modules\.linear\.Linear"):
    weights.load(TORCH / "whole_module.pth")


class Evil:
  """Would create a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def archive(path, content, protocol=2):
  data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", data)
    file.writestr("archive/version", "3\n")
  return path


@pytest.mark.parametrize("legacy", [False, True])
def test_runs_no_code(tmp_path, legacy):
  proof = tmp_path / "executed"
  content = {"model": {"weight": Evil(proof)}}
  path = tmp_path / "evil.pth"
  if legacy:
    path.write_bytes(pickle.dumps(content, 2))
  else:
    archive(path, content)
  with pytest.raises(weights.WeightsError, match=r"refers to posix\.mkdir.*could run code"):
    weights.load(path)
  assert not proof.exists()


# Attempts to reach a function through allowed names, or through the pickle machine.
GADGETS = {
  "getattr of a class": b"cbuiltins\ngetattr\n.",
  "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
  "dotted into os": b"\x80\x04\x8c\x08argparse\x8c\x0dNamespace._os\x93.",
  "old instance": b"(S'true'\nios\nsystem\n.",
  "eval": b"c__builtin__\neval\n(S'1'\ntR.",
}


@pytest.mark.parametrize("gadget", GADGETS.values(), ids=GADGETS)
def test_knows_only_the_names_on_its_list(tmp_path, gadget):
  with pytest.raises(weights.WeightsError, match="refers to"):
    weights.load(archive(tmp_path / "gadget.pth", gadget))


def test_inert_objects_ignore_their_state(tmp_path):
  namespace = b"\x80\x02cargparse\nNamespace\n)\x81}X\x09\x00\x00\x00__class__K\x01sb."
  pickletools.dis(namespace, io.StringIO())  # well formed
  with pytest.raises(weights.WeightsError, match="no state dict"):
    weights.load(archive(tmp_path / "namespace.pth", namespace))


def rewritten(path, change, **entries):
  """A copy of checkpoint.pth whose data.pkl went through `change`, with some entries replaced."""
  with zipfile.ZipFile(TORCH / "checkpoint.pth") as source, zipfile.ZipFile(path, "w") as target:
    for name in source.namelist():
      data = source.read(name)
      key = name.rsplit("/", 1)[1].replace(".", "_")
      target.writestr(name, entries.get(key, change(data) if key == "data_pkl" else data))
  return path


def test_refuses_windows_beyond_the_storage(tmp_path):
  # Changes the last shape, that of head.bias, from (3,) to (200,), with a storage of 3.
  def enlarge(data):
    return data.replace(b"K\x03\x85", b"K\xc8\x85")

  with pytest.raises(weights.WeightsError, match="needs 200 numbers of a storage of 3"):
    weights.load(rewritten(tmp_path / "beyond.pth", enlarge))


def test_refuses_another_byte_order_and_cut_storages(tmp_path):
  with pytest.raises(weights.WeightsError, match="big-endian"):
    weights.load(rewritten(tmp_path / "big.pth", lambda data: data, byteorder=b"big"))
  storage = {str(key): b"123" for key in range(20)}
  with pytest.raises(weights.WeightsError, match="is damaged"):
    weights.load(rewritten(tmp_path / "cut.pth", lambda data: data, **storage))


def test_a_flipped_bit_is_found(tmp_path):
  data = bytearray((TORCH / "checkpoint.pth").read_bytes())
  with zipfile.ZipFile(TORCH / "checkpoint.pth") as file:
    info = max(file.infolist(), key=lambda info: info.file_size if "/data/" in info.filename else 0)
  data[info.header_offset + 200] ^= 1
  (tmp_path / "flipped.pth").write_bytes(data)
  with pytest.raises(weights.WeightsError, match="wrong checksum"):
    weights.load(tmp_path / "flipped.pth")
