"""Random changes of every kind of file that is read, drawn by hypothesis, which reduces a failure to its smallest form.

  python tests/fuzzing.py --minutes=60

Whatever a file contains, its reader raises a UserError or returns something valid, in little memory.
"""

import argparse
from collections.abc import Callable
import dataclasses
import io
import pathlib
import resource
import struct
import tarfile
import tempfile
import time
import zipfile

import goldens
import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from mlpvision import weights
from mlpvision.data import crops, image_files, transforms
from mlpvision.errors import UserError
from mlpvision.prepare.builders import wordnet_tars
from mlpvision.reporting import metrics

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
MEGABYTES = 800  # that a reader may take, whatever the file says


@dataclasses.dataclass
class Kind:
  """A kind of file.

  originals: {name: content} of valid small files.
  read: (path, original's name, whether only bytes outside of checksums and lengths were changed) -> None; raises
    UserError if it refuses the file, and AssertionError if what it returns is wrong.
  """

  originals: dict[str, bytes]
  read: Callable[[pathlib.Path, str, bool], None]


def changed(data: bytes, random, others: list[bytes]) -> bytes:
  """data with one to four changes, more of them near its start and end, where the structure is."""
  data = bytearray(data)
  for _ in range(random.choice([1, 1, 2, 4])):
    if not data:
      break
    end = len(data)
    low, high = random.choice([(0, end), (0, min(end, 1500)), (max(0, end - 3000), end)])
    at, size = random.randrange(low, high), random.choice([1, 2, 4, 8, 40, 500])
    kind = random.randrange(9)
    if kind == 0:
      data[at] ^= 1 << random.randrange(8)
    elif kind == 1:
      data[at] = random.randrange(256)
    elif kind == 2:
      data[at : at + size] = random.choice(_NUMBERS).to_bytes(8, random.choice(["little", "big"]))[: min(size, 8)]
    elif kind == 3:
      del data[at : at + size]
    elif kind == 4:
      data[at:at] = data[at : at + size] * random.choice([1, 2, 50])
    elif kind == 5:
      data[at:at] = bytes(random.randrange(256) for _ in range(min(size, 40)))
    elif kind == 6:
      data[at:at] = random.choice(_TEXTS)
    elif kind == 7:
      other = random.choice(others)
      start = random.randrange(len(other))
      data[at : at + size] = other[start : start + size]
    else:
      del data[at:]
  return bytes(data)


def changed_inside(name: str, data: bytes, random, others: list[bytes]) -> bytes:
  """A change behind checksums and lengths: of a pickle, of a member of a zip archive, or of a JSON header."""
  if name.endswith(".safetensors"):
    length = int.from_bytes(data[:8], "little")
    head = changed(data[8 : 8 + length], random, others)
    return struct.pack("<Q", len(head)) + head + data[8 + length :]
  result = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(result, "w") as target:
    names = source.namelist()
    chosen = next((one for one in names if one.endswith("data.pkl")), random.choice(names))
    for one in names:
      content = source.read(one)
      target.writestr(one, changed(content, random, others) if one == chosen else content)
  return result.getvalue()


def weight_files(folder: pathlib.Path) -> Kind:
  """.pth of both formats, .npz with and without compression, .safetensors with notes."""
  torch, (_, params, _) = goldens.DATA / "torch", goldens.read("mixer_npz")
  names = ("checkpoint.pth", "checkpoint_legacy.pth", "halves.pth")
  originals = {name: (torch / name).read_bytes() for name in names}
  for name, save in (("stored.npz", np.savez), ("compressed.npz", np.savez_compressed)):
    save(folder / name, **params)
    originals[name] = (folder / name).read_bytes()
  module, params, _ = goldens.loaded("mixer_timm")
  view = weights.Preprocessing((0.5,) * 3, (0.5,) * 3, image_size=32)
  weights.save(folder / "noted.safetensors", module, params, view, [f"class {i}" for i in range(module.num_classes)])
  originals["noted.safetensors"] = (folder / "noted.safetensors").read_bytes()
  expected = {}
  for name, data in originals.items():
    (folder / name).write_bytes(data)
    expected[name] = weights.load(folder / name).params

  def read(path, name, inside):
    try:
      found = weights.load(path).params
    except weights.WeightsError as error:
      message = str(error).replace("\n", " ")
      assert message.startswith(str(path))
      assert message.isprintable()
      raise
    if not inside and name.endswith((".npz", "checkpoint.pth", "halves.pth")):  # with checksums
      jax.tree.map(np.testing.assert_array_equal, found, expected[name])

  return Kind(originals, read)


def pictures(folder: pathlib.Path) -> Kind:
  """An image in every format."""
  del folder
  photo, originals = Image.fromarray(load_sample_image("china.jpg")).resize((60, 40)), {}
  for form in image_files.FORMATS:
    file = io.BytesIO()
    photo.save(file, form)
    originals[f"photo.{form.lower()}"] = file.getvalue()
  for name, options in (("progressive.jpeg", dict(progressive=True)), ("exif.jpeg", dict(exif=_orientation()))):
    file = io.BytesIO()
    photo.save(file, "JPEG", **options)
    originals[name] = file.getvalue()

  def read(path, name, inside):
    del name, inside
    data = image_files.read(path)
    image = transforms.open_image(data)
    assert image.mode == "RGB"
    assert crops.center_crop(image, 32, crop_ratio=0.875, interpolation="bicubic").shape == (32, 32, 3)
    picture, shape = crops.with_shape(data)
    box = crops.draw_box(shape, np.random.default_rng(0), scale=(0.1, 1), ratio=(3 / 4, 4 / 3))
    assert crops.cut(picture, box, 32).shape == (32, 32, 3)

  return Kind(originals, read)


def _orientation():
  exif = Image.Exif()
  exif[0x0112] = 6
  return exif


def archives(folder: pathlib.Path) -> Kind:
  """A class of pictures in an archive, as ImageNet has them, with and without compression."""
  inner = io.BytesIO()
  with tarfile.open(fileobj=inner, mode="w") as tar:
    for i in range(3):
      file = io.BytesIO()
      Image.new("RGB", (8, 8), (i, 0, 0)).save(file, "JPEG")
      member = tarfile.TarInfo(f"n00000001_{i}.JPEG")
      member.size = file.tell()
      tar.addfile(member, io.BytesIO(file.getvalue()))
  originals = {}
  for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz")):
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode=mode) as tar:
      member = tarfile.TarInfo("n00000001.tar")
      member.size = len(inner.getvalue())
      tar.addfile(member, io.BytesIO(inner.getvalue()))
    originals[f"whole.{suffix}"] = outer.getvalue()

  def read(path, name, inside):
    del name, inside
    parts = [None] if wordnet_tars.is_gzip(path) else [None, *wordnet_tars.slices(path, 2048)[1]]
    for part in parts:
      for _, _, image, data in wordnet_tars.images(path, lambda *problem: None, part):
        assert isinstance(image, str)
        assert len(data) < 2**26

  return Kind(originals, read)


def metric_files(folder: pathlib.Path) -> Kind:
  """metrics.jsonl; a row that can be read is one that was written, or has a step."""
  del folder
  rows = "".join(f'{{"step": {i}, "epoch": {i / 10}, "train/loss": {1 / (i + 1)}}}\n' for i in range(40))

  def read(path, name, inside):
    del name, inside
    for row in metrics.read(path.parent):
      assert isinstance(row["step"], int)

  return Kind({"metrics.jsonl": rows.encode()}, read)


KINDS = {"weight files": weight_files, "images": pictures, "archives": archives, "metrics": metric_files}


def run(kind: str, folder: pathlib.Path, examples: int, seed: int | None = None) -> dict[str, int]:
  """{"read": how often, "refused": how often} over `examples` changes of files of a kind; AssertionError if one fails.

  seed: None draws the same changes every time.
  """
  files, counts = KINDS[kind](folder), {"read": 0, "refused": 0}
  names, others = list(files.originals), list(files.originals.values())
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

  @hypothesis.settings(
    max_examples=examples, derandomize=seed is None, deadline=None, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )  # fmt: skip
  @hypothesis.given(st.randoms(use_true_random=False), st.integers(0, len(names) - 1), st.booleans())
  def one(random, number, inside):
    name = names[number]
    data = files.originals[name]
    inside = inside and (zipfile.is_zipfile(io.BytesIO(data)) or name.endswith(".safetensors"))
    path = folder / (name if name == metrics.FILE else f"changed-{name}")
    path.write_bytes(changed_inside(name, data, random, others) if inside else changed(data, random, others))
    try:
      files.read(path, name, inside)
      counts["read"] += 1
    except UserError:
      counts["refused"] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak - before < MEGABYTES * 1024

  if seed is not None:
    one = hypothesis.seed(seed)(one)
  one()
  return counts


def main():
  """Fuzzes all kinds in turn, each time with another seed, and prints how often each was read and refused."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--minutes", type=float, default=60)
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  ends, seed, totals = time.monotonic() + 60 * options.minutes, options.seed, {}
  while time.monotonic() < ends:
    for kind in KINDS:
      with tempfile.TemporaryDirectory() as folder:
        for outcome, count in run(kind, pathlib.Path(folder), 500, seed).items():
          totals[kind, outcome] = totals.get((kind, outcome), 0) + count
    seed += 1
    print(f"{seed - options.seed} rounds: {totals}", flush=True)


if __name__ == "__main__":
  main()
