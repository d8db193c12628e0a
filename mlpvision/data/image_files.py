"""Reads and opens image files that nobody vouches for: regular files, in known formats, within limits.

`MAX_PIXELS`, `MAX_BYTES` and `MAX_SCANS` keep what one image takes below about 800 MB and a few seconds, in addition to
the file itself. They are far above what photographs need.
"""

import io
import itertools
import os
import re
import stat
import warnings

from etils import epath
from PIL import Image, UnidentifiedImageError

from mlpvision.data import tiff_directory
from mlpvision.errors import UserError

# No format whose reader starts another program (EPS) or that is hardly tested.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
MAX_BYTES = 256 * 2**20  # of a file
MAX_PIXELS = 102_000_000  # at up to 8 bytes per pixel; medium-format cameras have 101.9 million
# These readers hold further copies: libjpeg the coefficients of a JPEG of several scans, the others whole frames.
_MAX_PIXELS = {"JPEG of several scans": 68_000_000, "WEBP": 40_000_000, "AVIF": 40_000_000}
MAX_SCANS = 100  # of a JPEG; each takes as long as decoding the image once. Encoders write up to about 20.
_MAX_METADATA = 2**20  # bytes of Exif data in which the orientation is looked up

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # of a JPEG, other than in compressed data
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# Pillow warns of broken metadata, once for each entry, and of sizes above its own limit.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(UserError):
  """An image that cannot be read, is damaged, too large, or not an image at all."""


def read(path: str | os.PathLike, size: int = MAX_BYTES) -> bytes:
  """The bytes, up to `size`, of a regular file, which may be remote ("gs://..."). Raises ImageError with the reason.

  A FIFO or a device is neither waited for nor opened.
  """
  path = os.fspath(path)
  try:
    if "://" in path:
      with epath.Path(path).open("rb") as file:
        return file.read(size)
    _check_regular(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(descriptor, "rb") as file:
      found = os.fstat(descriptor)
      _check_regular(found, path)  # it may have been exchanged
      return file.read(min(size, found.st_size))
  except FileNotFoundError as error:
    raise ImageError(f"{path}: there is no such file") from error
  except (OSError, ValueError) as error:  # ValueError: a null character in the path
    raise ImageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _check_regular(found, path):
  if not stat.S_ISREG(found.st_mode):
    kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a device, FIFO or socket"
    raise ImageError(f"{path}: {kind}, not an image")
  if found.st_size > MAX_BYTES:
    raise ImageError(f"{path}: {found.st_size:,} bytes; images may have up to {MAX_BYTES:,}")


def opened(data: bytes, name: str) -> Image.Image:
  """Encoded bytes -> a PIL image whose pixels are not decoded yet; `name` is for messages.

  Raises ImageError: not one of FORMATS, above the limits, or the header is damaged.
  """
  if data[8:12] == b"WEBP":  # its reader allocates the frames when it opens the file
    check_pixels(_webp_size(data), name, "WEBP")
  if any(map(tiff_directory.is_excessive, _directories(data))):
    raise ImageError(f"{name}: its metadata would take too much memory")
  try:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
  except UnidentifiedImageError as error:
    raise ImageError(f"{name}: not an image in a supported format ({', '.join(FORMATS)})") from error
  except Image.DecompressionBombError as error:
    raise ImageError(f"{name}: too large ({error})") from error
  except Exception as error:  # Pillow's readers raise nearly anything on broken bytes
    raise ImageError(f"{name}: a damaged image ({error})") from error
  if image.format in ("JPEG", "MPO"):
    check_jpeg(data, image.size, name)
  else:
    check_pixels(image.size, name, image.format)
  return image


def _directories(data):
  """What Pillow may read as directories while it opens a file: TIFF itself, and the Exif data of JPEG and AVIF."""
  if data.startswith((b"II", b"MM")):
    yield data
  elif data.startswith(b"\xff\xd8"):
    parts = (data[start + 2 : end] for start, end in _segments(data) if data[start - 1] == 0xE1)
    yield b"".join(part[6:] for part in parts if part.startswith(b"Exif\0\0"))
  elif data[4:8] == b"ftyp":
    for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0"):
      start = data.find(magic)
      while start >= 0:
        yield data[start:]
        start = data.find(magic, start + 4)


def _webp_size(data):
  """(width, height) from the header; (0, 0) if it is not one."""
  kind, number = data[12:16], lambda start, end: int.from_bytes(data[start:end], "little")
  if kind == b"VP8X":
    return number(24, 27) + 1, number(27, 30) + 1
  if kind == b"VP8L":
    return (number(21, 25) & 0x3FFF) + 1, (number(21, 25) >> 14 & 0x3FFF) + 1
  return (number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF) if kind == b"VP8 " else (0, 0)


def check_jpeg(data: bytes, size: tuple[int, int], name: str) -> None:
  """Raises ImageError if a JPEG of this size, in either order, is above the limits; takes microseconds."""
  scans = 1 if _is_ordinary(data) else _scans(data)
  if scans > MAX_SCANS:
    raise ImageError(f"{name}: a JPEG of more than {MAX_SCANS} scans")
  check_pixels(size, name, "JPEG of several scans" if scans > 1 else "JPEG")


def check_pixels(size: tuple[int, int], name: str, kind: str | None = None) -> None:
  """Raises ImageError if an image of this size, in either order, has too many pixels."""
  limit = _MAX_PIXELS.get(kind, MAX_PIXELS)
  if size[0] * size[1] > limit:
    of_kind = f" for a {kind}" if kind in _MAX_PIXELS else ""
    raise ImageError(f"{name}: {size[0]} x {size[1]} pixels are too many{of_kind}; up to {limit:,} are read")


def _is_ordinary(data):
  """Whether a decoder reads one scan alone, because it is sequential and has all components; faster than `_scans`."""
  start, components = 2, None
  while start + 9 < len(data) and data[start] == 0xFF and data[start + 1] not in _BARE:
    marker = data[start + 1]
    if marker in _FRAMES:
      if marker not in _SEQUENTIAL or components is not None:
        return False
      components = data[start + 9]
    elif marker == 0xDA:
      return data[start + 4] == components
    start += 2 + (data[start + 2] << 8 | data[start + 3])
  return False


def _scans(data):
  """The number of scans that a decoder reads from a JPEG, at most MAX_SCANS + 1."""
  scans = (None for start, _ in _segments(data) if data[start - 1] == 0xDA)
  return sum(1 for _ in itertools.islice(scans, MAX_SCANS + 1))


def _segments(data):
  """(start, end) of each segment of a JPEG; its marker is the byte before the start."""
  end = 2
  while (found := _MARKER.search(data, end)) is not None:
    start, marker = found.end(), data[found.end() - 1]
    if marker == 0xD9:
      return
    if marker in _BARE:
      end = start
      continue
    end = start + max(2, int.from_bytes(data[start : start + 2]))
    yield start, end


def orientation(image: Image.Image) -> int:
  """The EXIF orientation, 1 to 8; 1 if there is none, or its metadata are broken or enormous."""
  exif = image.info.get("exif") or b""
  if len(exif) > _MAX_METADATA or tiff_directory.is_excessive(exif.removeprefix(b"Exif\0\0")):
    return 1
  try:
    found = image.getexif().get(0x0112, 1)
  except Exception:  # Pillow raises nearly anything on broken metadata, which do not affect the pixels
    return 1
  return found if found in range(1, 9) else 1
