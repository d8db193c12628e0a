"""Reads zip archives whose author is not trusted: everything is checked before anything is read.

Python's zipfile creates an object for each entry that a file claims, and believes sizes and overlaps. Files of PyTorch
and NumPy need little of the format: members that are stored or deflated, one after the other.
"""

import os
import struct
import zlib

import numpy as np

_MAX_MEMBERS = 200_000  # COCO's largest archive has 118,287
_PIECE = 1 << 16
_STORED, _DEFLATED = 0, 8


class Member:
  """One file of an archive.

  Attributes:
    name: in the archive.
    size: in bytes, uncompressed.
  """

  def __init__(self, path: str, name: str, start: int, packed: int, size: int, method: int, crc: int) -> None:
    self.name, self.size = name, size
    self._path, self._start, self._packed, self._method, self._crc = path, start, packed, method, crc
    if method not in (_STORED, _DEFLATED) or (method == _STORED and packed != size):
      raise ValueError(f"{name} is compressed in an unknown way, or its sizes differ")

  @property
  def is_stored(self) -> bool:
    """Whether it is not compressed."""
    return self._method == _STORED

  def head(self, size: int) -> bytes:
    """The first bytes, up to `size`; nothing more is decompressed."""
    data = self._mapped()
    if self.is_stored:
      return data[:size].tobytes()
    return zlib.decompressobj(-15).decompress(data[: 2 * size + 1000], size)

  def read(self) -> np.ndarray:
    """uint8 [size]: the mapped file or, if compressed, a copy. ValueError if the length or the checksum is wrong."""
    data = self._mapped()
    if not self.is_stored:
      data = self._inflated(data)
    if self._crc and zlib.crc32(data) != self._crc:  # torch can be configured to write 0
      raise ValueError(f"{self.name} has the wrong checksum")
    return data

  def _inflated(self, data):
    """In pieces, so that a member that is longer than it says is never decompressed as a whole."""
    inflate, at, result = zlib.decompressobj(-15), 0, np.empty(self.size, np.uint8)
    for start in range(0, len(data), _PIECE):
      rest = data[start : start + _PIECE].tobytes()
      while rest and not inflate.eof:
        piece = inflate.decompress(rest, 16 * _PIECE)
        if at + len(piece) > self.size:
          raise ValueError(f"{self.name} is longer than the archive says")
        result[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at, rest = at + len(piece), inflate.unconsumed_tail
    if at != self.size or not inflate.eof:
      raise ValueError(f"{self.name} is shorter than the archive says")
    return result

  def _mapped(self):
    return mapped(self._path, self._start, self._packed)


def mapped(path: str | os.PathLike, start: int, size: int) -> np.ndarray:
  """uint8 [size] of a file. Pages are freed with the array: a file and its copy are never both in memory."""
  return np.memmap(path, np.uint8, "r", start, (size,)) if size else np.empty(0, np.uint8)


def members(path: str | os.PathLike) -> dict[str, Member]:
  """{name: Member} of an archive. ValueError or struct.error if it is damaged, or its members share bytes or names."""
  path, total = os.fspath(path), os.path.getsize(path)
  with open(path, "rb") as file:
    start, size = _directory(file, total)
    file.seek(start)
    directory, found, at = file.read(size), {}, 0
    while at < size:
      fields = struct.unpack_from("<4s4xHH4xIIIHHH8xI", directory, at)
      magic, flags, method, crc, packed, unpacked, name_size, extra_size, comment_size, header = fields
      name = directory[at + 46 : at + 46 + name_size]
      at += 46 + name_size + extra_size + comment_size
      if magic != b"PK\x01\x02" or at > size or flags & 1 or len(found) == _MAX_MEMBERS:
        raise ValueError(f"its directory of members is invalid, or has more than {_MAX_MEMBERS:,}")
      extra = directory[at - comment_size - extra_size : at - comment_size]
      unpacked, packed, header = _large(extra, [unpacked, packed, header])
      name = name.decode("utf-8" if flags & 0x800 else "cp437", "backslashreplace")
      if name in found:
        raise ValueError(f"it has two members named {name[:200]}")
      found[name] = (header, packed, unpacked, method, crc)
    starts = _starts(file, found, start)
  return {name: Member(path, name, starts[name], *fields[1:]) for name, fields in found.items()}


def _starts(file, found, end):
  """{name: start of its data}; from the last to the first, each must end before the next one begins."""
  starts = {}
  for name, (header, packed, *_) in sorted(found.items(), key=lambda item: -item[1][0]):
    file.seek(header)
    magic, name_size, extra_size = struct.unpack("<4s22xHH", file.read(30))
    starts[name] = header + 30 + name_size + extra_size
    if magic != b"PK\x03\x04" or starts[name] + packed > end:
      raise ValueError(f"{name[:200]} is not where the archive says, or overlaps another member")
    end = header
  return starts


def _directory(file, total):
  """(start, size) of the list of members, from the record at the end of the file."""
  file.seek(max(0, total - (1 << 16) - 100))
  tail = file.read()
  at = tail.rfind(b"PK\x05\x06")
  if at < 0:
    raise ValueError("its end is missing")
  size, start = struct.unpack_from("<12xII2x", tail, at)
  end = total - len(tail) + at
  if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
    (record,) = struct.unpack_from("<8xQ4x", tail, at - 20)
    if record > total:
      raise ValueError("its end is invalid")
    file.seek(record)
    magic, size, start = struct.unpack("<4s36xQQ", file.read(56))
    end = record if magic == b"PK\x06\x06" else -1
  if start + size > end or size > _MAX_MEMBERS * 150:
    raise ValueError("its directory of members is not where its end says, or too large")
  return start, size


def _large(extra, values):
  """values, each that is 2^32 - 1 replaced by the 64-bit number in the extra fields of a member."""
  numbers, at = b"", 0
  while at + 4 <= len(extra):
    kind, size = struct.unpack_from("<HH", extra, at)
    if kind == 1:
      numbers = extra[at + 4 : at + 4 + size]
    at += 4 + size
  found = iter(struct.unpack(f"<{len(numbers) // 8}Q", numbers[: len(numbers) // 8 * 8]))
  return [next(found, value) if value == 0xFFFFFFFF else value for value in values]
