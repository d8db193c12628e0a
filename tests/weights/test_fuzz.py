"""Random changes of small weight files: they are refused, or load the numbers that a checksum covers."""

import io
import json
import pathlib
import resource
import struct
import sys
import zipfile

import goldens
import jax
import numpy as np
import pytest

from mlpvision import weights

_TORCH = goldens.DATA / "torch"
_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_TEXTS = (
  b"9" * 30,
  b"-1",
  b"1e999",
  b"NaN",
  b"null",
  b"true",
  b"[" * 2000,
  b"{}",
  b'"',
  b"\x1b[31m",
  b"\xff",
  b"F8_E4M3",
)


def _originals(folder):
  """{name: (bytes, whether a checksum covers the numbers)} of one small file of each kind."""
  _, params, _ = goldens.read("mixer_npz")
  found = {
    f"{name}.pth": (_TORCH / f"{name}.pth").read_bytes() for name in ("checkpoint", "checkpoint_legacy", "halves")
  }
  for name, save in (("stored.npz", np.savez), ("compressed.npz", np.savez_compressed)):
    save(folder / name, **params)
    found[name] = (folder / name).read_bytes()
  module, params, _ = goldens.loaded("mixer_timm")
  view = weights.Preprocessing((0.5,) * 3, (0.5,) * 3, image_size=32)
  weights.save(folder / "noted.safetensors", module, params, view, [f"class {i}" for i in range(module.num_classes)])
  found["noted.safetensors"] = (folder / "noted.safetensors").read_bytes()
  return found


def _changed(data, rng, others):
  """data with one to four random changes, more of them near its start and end, where the structure is."""
  data = bytearray(data)
  for _ in range(rng.choice([1, 1, 2, 4])):
    if not data:
      break
    end = len(data)
    low, high = [(0, end), (0, min(end, 1500)), (max(0, end - 3000), end)][rng.integers(3)]
    at = int(rng.integers(low, high))
    size = int(rng.choice([1, 2, 4, 8, 40, 500]))
    kind = rng.integers(9)
    if kind == 0:
      data[at] ^= 1 << rng.integers(8)
    elif kind == 1:
      data[at] = rng.integers(256)
    elif kind == 2:
      number = _NUMBERS[rng.integers(len(_NUMBERS))].to_bytes(8, "little")
      data[at : at + size] = number[: min(size, 8)]
    elif kind == 3:
      del data[at : at + size]
    elif kind == 4:
      data[at:at] = data[at : at + size] * int(rng.choice([1, 2, 50]))
    elif kind == 5:
      data[at:at] = rng.bytes(size)
    elif kind == 6:
      data[at:at] = _TEXTS[rng.integers(len(_TEXTS))]
    elif kind == 7:
      other = others[rng.integers(len(others))]
      start = int(rng.integers(len(other)))
      data[at : at + size] = other[start : start + size]
    else:
      del data[at:]
  return bytes(data)


def _inside(name, data, rng, others):
  """A change behind the checksums and lengths: of the pickle, of a member's header, or of the JSON of the header."""
  if name.endswith(".safetensors"):
    length = int.from_bytes(data[:8], "little")
    head = _changed(data[8 : 8 + length], rng, others)
    return struct.pack("<Q", len(head)) + head + data[8 + length :]
  result = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(result, "w") as target:
    names = source.namelist()
    chosen = next((one for one in names if one.endswith("data.pkl")), names[rng.integers(len(names))])
    for one in names:
      content = source.read(one)
      target.writestr(one, _changed(content, rng, others) if one == chosen else content)
  return result.getvalue()


def fuzz(folder: pathlib.Path, seed: int, rounds: int) -> dict[str, int]:
  """{outcome: how often} over `rounds` changes of each file."""
  rng = np.random.default_rng(seed)
  originals, counts = _originals(folder), {"refused": 0, "loaded": 0}
  expected = {}
  for name, data in originals.items():
    (folder / name).write_bytes(data)
    expected[name] = weights.load(folder / name).params
  others = list(originals.values())
  for _ in range(rounds):
    for name, data in originals.items():
      is_inside = name != "checkpoint_legacy.pth" and rng.random() < 0.6
      changed = _inside(name, data, rng, others) if is_inside else _changed(data, rng, others)
      path = folder / f"changed-{name}"
      path.write_bytes(changed)
      try:
        params, message = weights.load(path).params, ""
      except weights.WeightsError as error:
        params, message = None, str(error).replace("\n", " ")
      counts["refused" if message else "loaded"] += 1
      assert not message or (message.startswith(str(path)) and message.isprintable())
      if params and not is_inside and name.endswith((".npz", "checkpoint.pth", "halves.pth")):
        jax.tree.map(np.testing.assert_array_equal, params, expected[name])
  return counts


@pytest.mark.slow
def test_a_changed_file_loads_or_is_refused(tmp_path):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  counts = fuzz(tmp_path, seed=0, rounds=700)
  print(counts)
  assert min(counts.values()) > 150
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


if __name__ == "__main__":  # python tests/weights/test_fuzz.py FOLDER SEED ROUNDS
  print(json.dumps(fuzz(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
