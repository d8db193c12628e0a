"""Archives for `prepare` that nobody vouches for: bounded memory, and readable messages."""

import gzip
import tarfile
import tracemalloc

import pytest
from tars import tar, tar_bytes

from mlpvision.errors import UserError
from mlpvision.prepare import archives, tars as tars_lib
from mlpvision.prepare.builders import wordnet_tars

_CLASS = "n00000001.tar"


def _header(name, size, kind=b"0", change=lambda block: None):
  """A header of 512 bytes; size may be anything; `change` edits it before its checksum is written."""
  member = tarfile.TarInfo(name)
  member.type = kind
  block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
  block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else b"\xff" * 4 + size.to_bytes(8, "big", signed=True)
  if size >= 8**11:
    block[124:128] = b"\x80\0\0\0"
  change(block)
  block[148:156] = b" " * 8
  block[148:156] = b"%06o\0 " % sum(block)
  return bytes(block)


def _sparse(size=3 * 2**30):
  """GNU's old format: one empty block at the end of `size` zeros."""

  def change(block):
    block[386:410] = b"%011o\0" % size + b"%011o\0" % 0
    block[483:495] = b"%011o\0" % size

  return lambda name: _header(name, 0, b"S", change)


def _extended(**attributes):
  """Attributes in POSIX's format, before a header of the given name."""
  records = b""
  for key, value in attributes.items():
    text = f" {key.replace('__', '.')}={value}\n".encode()
    length = len(text) + len(str(len(text) + 2))
    records += str(length).encode() + text
  padded = records.ljust(-(-len(records) // 512) * 512, b"\0")
  return lambda name: _header("x", len(records), b"x") + padded + _header(name, 0)


def _kind(kind):
  return lambda name: _header(name, 0, kind)


_END = bytes(10240)
_BAD = {
  "sparse": _sparse(),
  "sparse 0.1": _extended(GNU__sparse__map="0,1", GNU__sparse__size=3 * 2**30, GNU__sparse__numblocks=1),
  "sparse 1.0": _extended(GNU__sparse__major=1, GNU__sparse__minor=0, GNU__sparse__realsize=3 * 2**30),
  "negative": lambda name: _header(name, -512),
  "negative, extended": _extended(size=-1024),
  "absurd": lambda name: _header(name, 2**50),
  "absurd, extended": _extended(size=2**60),
  "a long name of a gigabyte": lambda name: _header("x", 2**30, b"L"),
  "a negative long name": lambda name: _header("x", -512, b"L"),
  "attributes of a gigabyte": lambda name: _header("x", 2**30, b"x"),
  "link": _kind(b"2"),
  "hard link": _kind(b"1"),
  "device": _kind(b"3"),
  "FIFO": _kind(b"6"),
  "checksum": lambda name: bytes(200) + b"x" + _header(name, 0)[201:],
  "a chain of long names": lambda name: (_header("x", 1, b"L") + bytes(512)) * 2000,
}


def _read(path):
  """(names of images, reports) of an archive, in little memory."""
  reports = []
  tracemalloc.start()
  try:
    images = wordnet_tars.images(path, lambda _, *problem: reports.append(problem))
    found = [name for _, _, name, _ in images]
    assert tracemalloc.get_traced_memory()[1] < 20e6
  finally:
    tracemalloc.stop()
  return found, reports


def _cut(path):
  if not wordnet_tars.is_gzip(path):
    return wordnet_tars.slices(path, 1000)
  return wordnet_tars.classes(path)


@pytest.mark.parametrize("kind", _BAD)
def test_a_bad_member_is_refused_with_the_archive(tmp_path, kind):
  path = tmp_path / "whole.tar"
  good = _header(_CLASS, 0)
  path.write_bytes(good + _BAD[kind]("n00000002.tar") + _END)
  for read in (wordnet_tars.classes, _read, _cut):
    with pytest.raises(UserError, match=r"whole\.tar is damaged at or after n00000001\.tar: "):
      read(path)


@pytest.mark.parametrize("kind", _BAD)
def test_a_bad_picture_ends_its_class_and_is_reported(tmp_path, kind):
  inner = tar_bytes({"n00000001_1.JPEG": b"1"})[:1024] + _BAD[kind]("n00000001_2.JPEG") + _END
  path = tar(tmp_path / "whole.tar", {_CLASS: inner, "n00000002.tar": tar_bytes({"n00000002_1.JPEG": b"2"})})
  found, [(name, reason)] = _read(path)
  assert found == ["n00000001_1.JPEG", "n00000002_1.JPEG"]
  assert name == _CLASS
  assert "damaged" in reason


def test_an_archive_may_begin_badly(tmp_path):
  for bad in _BAD.values():
    (tmp_path / "fall11_whole.tar").write_bytes(bad("n00000001.tar") + _END)
    with pytest.raises(UserError, match=r"fall11_whole\.tar cannot be read as a tar"):
      archives.check("imagenet21k/fall11", tmp_path)


def test_zeros_are_unpacked_a_little_at_a_time(tmp_path):
  path = tmp_path / "whole.tar.gz"
  with gzip.open(path, "wb", 1) as file:
    file.write(_header(f"w/{_CLASS}", 200 * 2**20))
    for _ in range(200):
      file.write(bytes(2**20))
    file.write(_END)
  assert _read(path)[0] == []
  assert path.stat().st_size < 10**6


def test_an_enormous_picture_is_reported_and_skipped(tmp_path):
  with gzip.open(tmp_path / "whole.tar.gz", "wb", 1) as file:
    inner = tar_bytes({"n00000001_2.JPEG": b"2"})
    size = 300 * 2**20
    file.write(_header(_CLASS, 512 + size + len(inner)) + _header("n00000001_1.JPEG", size))
    for _ in range(300):
      file.write(bytes(2**20))
    file.write(inner + _END)
  found, [(name, reason)] = _read(tmp_path / "whole.tar.gz")
  assert found == ["n00000001_2.JPEG"]
  assert name == "n00000001_1.JPEG"
  assert "314,572,800 bytes" in reason


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_cut_archive_is_named(tmp_path, suffix, share):
  classes = {f"n0000000{i}.tar": tar_bytes({f"n0000000{i}_{j}.JPEG": bytes(3000) for j in range(9)}) for i in range(9)}
  data = tar_bytes(classes)
  data = gzip.compress(data) if suffix == "tar.gz" else data
  path = tmp_path / f"whole.{suffix}"
  path.write_bytes(data[: int(len(data) * share)])
  for read in (wordnet_tars.classes, _read, _cut):
    with pytest.raises(UserError, match=rf"whole\.{suffix} is damaged"):
      read(path)


def test_a_name_may_contain_anything(tmp_path):
  path = tar(tmp_path / "whole.tar", {_CLASS: tar_bytes({"\x1b[2J.JPEG": b"1"})})
  assert _read(path) == (["\x1b[2J.JPEG"], [])


@pytest.mark.parametrize("kind", ["sparse", "negative", "negative, extended", "absurd", "attributes of a gigabyte"])
def test_the_builders_of_tfds_read_the_same_way(tmp_path, kind):
  from tensorflow_datasets.core.download import extractor, resource

  path = tmp_path / "whole.tar"
  path.write_bytes(_header("n00000001.tar", 0) + _BAD[kind]("n00000002.tar") + _END)
  with tars_lib.checked(), pytest.raises(tarfile.ReadError, match="sparse|declares"):
    list(extractor.iter_archive(path, resource.ExtractMethod.TAR_STREAM))
  assert tarfile.TarFile.tarinfo is tarfile.TarInfo
