"""Images that nobody vouches for: what they may take, what is opened at all, and what is refused."""

import io
import os
import socket
import struct
import zlib

import memory
import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_sample_image

from mlpvision.data import crops, datasets, image_files, pixels, tiff_directory, transforms
from mlpvision.errors import printable

_VIEW = dict(crop_ratio=0.875, interpolation="bicubic")


@pytest.fixture(scope="module")
def photo():
  return Image.fromarray(load_sample_image("china.jpg")).resize((240, 160))


def _encode(image, form="jpeg", **options):
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def _chunk(kind, data):
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width, height, *extra, bits=8, kind=0):
  """A black PNG; kind: 0 gray, 3 palette, 6 RGBA."""
  row = 1 + (width * bits * {0: 1, 3: 1, 6: 4}[kind] + 7) // 8
  packer = zlib.compressobj()
  body = b"".join([*(packer.compress(bytes(row)) for _ in range(height)), packer.flush()])
  header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
  return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _readers(data):
  """What evaluation and the two kinds of training do with an image; functions without arguments."""
  image = lambda: crops.with_shape(data)  # noqa: E731
  box = lambda shape: crops.draw_box(shape, np.random.default_rng(0), scale=(0.1, 1), ratio=(3 / 4, 4 / 3))  # noqa: E731
  return (
    lambda: crops.center_crop(transforms.open_image(data), 64, **_VIEW),
    lambda: crops.cut(image()[0], box(image()[1]), 64),
    lambda: crops.warp(transforms.decode(data), crops.Affine(10.0, 1.1, (1.0, 2.0)), 64),
  )


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (1_000_000, 1), (3, 300_000)])
def test_a_strip_takes_no_more_than_its_pixels(size):
  for read in _readers(_png(*size)):
    with memory.limited(60):
      assert read().shape == (64, 64, 3)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_center_of_an_ordinary_image_is_the_originals_bit_for_bit(photo, interpolation):
  rng = np.random.default_rng(0)
  shapes = [(1, 1), (1, 32), (32, 1), (5, 150)] + [tuple(rng.integers(20, 400, 2)) for _ in range(60)]
  for shape in shapes:
    size, ratio = int(rng.integers(8, 120)), rng.choice([0.5, 0.875, 0.9, 0.95, 1.0])
    image, short = photo.resize(shape), int(size / ratio)
    resized = [int(short * side / min(shape)) for side in shape]  # torchvision's and timm's
    whole = np.asarray(image.resize(resized, Image.Resampling[interpolation.upper()]))
    left, top = (round((side - size) / 2) for side in resized)
    view = crops.center_crop(image, size, crop_ratio=ratio, interpolation=interpolation)
    np.testing.assert_array_equal(view, whole[top : top + size, left : left + size], err_msg=f"{shape} {size}")


@pytest.mark.parametrize("shape", [(700, 11), (11, 700), (999, 7), (40, 1300)])
def test_the_center_of_a_strip_is_the_same_up_to_rounding(photo, shape):
  image = photo.resize((shape[0] // 8 + 1, shape[1] // 8 + 1)).resize(shape)  # smooth
  view = crops.center_crop(image, 32, **_VIEW)
  resized = [int(36 * side / min(shape)) for side in shape]
  left, top = (round((side - 32) / 2) for side in resized)
  whole = image.resize(resized, Image.Resampling.BICUBIC).crop((left, top, left + 32, top + 32))
  assert np.abs(view - np.asarray(whole, int)).max() <= 2


def test_other_formats_are_not_opened_and_start_no_program(tmp_path, monkeypatch):
  (tmp_path / "bin").mkdir()
  (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
  (tmp_path / "bin" / "gs").chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
  eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
  svg = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/hostname'/></svg>"
  others = [_encode(Image.new("RGB", (9, 9)), form) for form in ("ico", "tga", "pcx", "sgi", "jpeg2000", "im")]
  for data in (eps, b"\xc5\xd0\xd3\xc6" + bytes(30) + eps, svg, b"8BPS\0\1" + bytes(99), *others):
    (tmp_path / "photo.jpg").write_bytes(data)
    for source in (data, tmp_path / "photo.jpg"):
      with pytest.raises(image_files.ImageError, match="supported format .*JPEG, PNG"):
        transforms.open_image(source)
  assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("form", image_files.FORMATS)
def test_every_supported_format_is_read_whatever_its_name(photo, form, tmp_path):
  (tmp_path / "photo.jfif").write_bytes(_encode(photo, form))
  read = np.asarray(transforms.open_image(tmp_path / "photo.jfif"), int)
  assert np.abs(read - np.asarray(photo)).mean() < 12  # a GIF has 256 colors


def _link_to(target):
  return lambda path: path.symlink_to(target)


def _socket(path):
  os.chdir(path.parent)  # the names of sockets are short
  socket.socket(socket.AF_UNIX).bind(path.name)


def _enormous(path):
  with open(path, "wb") as file:
    file.truncate(image_files.MAX_BYTES + 1)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (os.mkfifo, "FIFO"),
    (_link_to("/dev/zero"), "a device"),
    (_link_to("/dev/tty"), "a device|no such"),
    (_socket, "socket"),
    (os.mkdir, "a directory"),
    (_link_to("nowhere"), "no such file"),
    (_link_to("x.jpg"), "symbolic links"),
    (_link_to("/proc/self/status"), "not an image"),
    (_enormous, "268,435,457 bytes; .* 268,435,456"),
  ],
)
def test_only_regular_files_of_a_possible_size_are_opened(tmp_path, monkeypatch, make, message):
  monkeypatch.chdir(tmp_path)
  for name in ("a", "b"):
    (tmp_path / name).mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / name / "ok.png")
  path = tmp_path / "a" / "x.jpg"
  make(path)
  source = datasets.open_split(f"folder:{tmp_path}", "train").source
  assert len(source) == 3
  with memory.limited(60):
    with pytest.raises(image_files.ImageError, match=rf"x\.jpg.*({message})"):
      transforms.open_image(path)
    with pytest.raises(image_files.ImageError, match=f"({message})"):
      [transforms.open_image(source[i]["image"]) for i in range(3)]


def _progressive(width, height):
  """The beginning of a progressive JPEG that declares this size."""
  data = bytearray(_encode(Image.new("RGB", (16, 16)), progressive=True))
  start = data.index(b"\xff\xc2") + 5
  data[start : start + 4] = struct.pack(">HH", height, width)
  return bytes(data)


def _webp(width, height):
  """An animation of small frames on a canvas of this size."""
  frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
  data = bytearray(_encode(frames[0], "webp", save_all=True, append_images=frames[1:]))
  data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
  return bytes(data)


def _avif(width, height):
  data = bytearray(_encode(Image.new("RGB", (8, 8)), "avif"))
  start = data.index(b"ispe") + 8
  data[start : start + 8] = struct.pack(">II", width, height)
  return bytes(data)


def _gif(canvas, frame):
  screen = struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes(6)
  return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\2\x4c\1\0;"


@pytest.mark.parametrize(
  "make",
  [
    lambda: _png(13_300, 13_300, _chunk(b"PLTE", bytes(6)), _chunk(b"tRNS", b"\0\xff"), bits=1, kind=3),
    lambda: _png(10_100, 10_100, bits=1),
    lambda: _png(102_000_001, 1, bits=1),
    lambda: b"P5 12000 12000 255\n",
    lambda: _gif((60_000, 60_000), (1, 1)),
    lambda: _gif((1, 1), (12_000, 12_000)),
    lambda: _progressive(9000, 9000),
    lambda: _webp(8000, 6000),
    lambda: _webp(16_383, 16_383),
    lambda: _avif(8000, 6000),
  ],
)
def test_too_many_pixels_are_refused_before_they_are_decoded(make):
  for read in _readers(make()):
    with memory.limited(60), pytest.raises(image_files.ImageError, match="too many|too large"):
      read()


def _with_scans(photo, count, between=b""):
  data = _encode(photo, progressive=True)
  last = data[data.rindex(b"\xff\xda") : -2]
  return data[:-2] + (between + last) * count + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused(photo):
  hidden = b"\xff\xfe\0\x04\xff\xd9"  # a comment that contains the marker of the end
  for data in (_with_scans(photo, 2000), _with_scans(photo, 2000, hidden), _with_scans(photo, 95)):
    for read in _readers(data):
      with pytest.raises(image_files.ImageError, match="more than 100 scans"):
        read()
  for data in (_encode(photo), _encode(photo, progressive=True), _encode(photo) + _with_scans(photo, 2000)):
    for read in _readers(data):
      read()


def _tiff(entries, size):
  """A little-endian directory of (tag, type, count) whose values all lie in its last `size` bytes."""
  start = 10 + 12 * len(entries) + 4
  packed = b"".join(struct.pack("<HHII", *entry, start) for entry in sorted(entries))
  return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4 + size)


def test_directories_that_take_much_more_than_their_bytes_are_refused(photo):
  shared = _tiff([(tag, 7, 60_000) for tag in range(1000, 1100)], 60_000)  # 100 copies of the same bytes
  long = _tiff([(273, 4, 2**20 + 1)], 4 * 2**20 + 4)  # becomes a million Python objects
  for data in (shared, long, shared.replace(b"II*\0", b"II*\0")):
    assert tiff_directory.is_excessive(data)
    with pytest.raises(image_files.ImageError, match="metadata"):
      transforms.open_image(data)
  for fine in (b"", b"II", b"II*\0\xff\xff\xff\xff", _tiff([(1, 7, 2**31)], 9), _encode(photo, "tiff"), shared[:5000]):
    assert not tiff_directory.is_excessive(fine)
  jpeg, exif = _encode(photo), b"Exif\0\0" + shared
  segments = [b"Exif\0\0" + exif[6:][i : i + 60_000] for i in range(0, len(exif), 60_000)]
  joined = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in segments)
  with pytest.raises(image_files.ImageError, match="metadata"):
    transforms.open_image(jpeg[:2] + joined + jpeg[2:])
  assert transforms.open_image(_png(8, 8, _chunk(b"eXIf", shared))).size == (8, 8)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_compressed_metadata_are_not_unpacked_without_a_limit(kind):
  body = b"k\0\0" + zlib.compress(bytes(100 * 2**20))
  with memory.limited(30), pytest.raises(image_files.ImageError, match="damaged"):
    transforms.open_image(_png(8, 8, _chunk(kind, body if kind != b"iTXt" else b"k\0\1" + bytes(3) + body[3:])))


def test_a_large_image_is_converted_in_bands_with_the_same_result(photo, monkeypatch):
  gray = photo.convert("L")
  palette = photo.quantize(16)
  palette.info["transparency"] = bytes([0, 99, 255])
  deep, wide = (Image.fromarray(np.asarray(gray).astype(dtype) * 257) for dtype in (np.uint16, np.int32))
  modes = [photo.convert(mode) for mode in ("1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "F")]
  for image in (*modes, palette, deep, wide, Image.merge("RGBA", (*photo.split(), gray))):
    whole = np.asarray(pixels.to_rgb(image))
    with monkeypatch.context() as patch:
      patch.setattr(pixels, "_BAND", 1000)
      np.testing.assert_array_equal(pixels.to_array(pixels.to_rgb(image)), whole, err_msg=image.mode)


def test_a_large_crop_is_reduced_first(photo, monkeypatch):
  image = np.asarray(photo.resize((960, 640)))
  box = crops.Box(13, 21, 600, 900)
  exact = crops.cut(image, box, 64)
  monkeypatch.setattr(crops, "_LARGE", 1000)
  assert np.abs(crops.cut(image, box, 64) - exact.astype(float)).mean() < 2


def test_control_characters_are_written_out():
  assert printable("Kühe, 中国 \U0001f404 (x).jpg") == "Kühe, 中国 \U0001f404 (x).jpg"
  assert printable("a\x1b[2J\r\n\x9b\u202e") == r"a\x1b[2J\x0d\x0a\x9b\u202e"
  assert printable(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
