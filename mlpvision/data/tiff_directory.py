"""The first directory of a TIFF file or of Exif data, which Pillow copies and converts while it opens a file."""

import itertools
import struct

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # bytes of each type
_MAX_NUMBERS = 2**20  # of one entry, which become Python objects; the tables of the largest images have 100,000


def is_excessive(data: bytes) -> bool:
  """Whether reading the directory would take much more memory than `data`; False if it is not one.

  Entries that share their bytes are copied for each, and long tables of numbers become Python objects.
  """
  order = {b"II": "<", b"MM": ">"}.get(data[:2])
  if order is None:
    return False
  is_big = 43 in data[2:4]
  entry = struct.Struct(order + ("HHQ8s" if is_big else "HHI4s"))
  number = "Q" if is_big else "I"
  try:
    (start,) = struct.unpack_from(order + number, data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    total = 0
    for i in itertools.islice(itertools.count(), count):
      _, kind, length, value = entry.unpack_from(data, start + (8 if is_big else 2) + i * entry.size)
      size = length * _SIZES.get(kind, 0)
      if size <= len(value):
        continue
      if struct.unpack(order + number, value)[0] + size > len(data):
        break  # Pillow stops here, too
      total += size
      if total > 2 * len(data) or (_SIZES[kind] > 1 and length > _MAX_NUMBERS):
        return True
  except struct.error:  # it ends early
    pass
  return False
