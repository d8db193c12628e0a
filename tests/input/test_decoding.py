"""What training decodes: as evaluation does, whatever the file; and nothing that is damaged."""

import io
import itertools

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_sample_images

from mlpvision.data import crops, resizing, transforms


@pytest.fixture(scope="module")
def photos():
  """Two real photographs, 640 x 427."""
  return [Image.fromarray(image) for image in load_sample_images().images]


def _encode(image, form="jpeg", **options):
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def _crop(data, size=64, seed=0):
  image, shape = crops.with_shape(data)
  box = crops.draw_box(shape, np.random.default_rng(seed), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
  return crops.cut(image, box, size)


def _difference(a, b):
  return np.abs(np.asarray(a, float) - np.asarray(b, float)).mean()


def _noted(image, seed):
  """Where `_crop` cuts: (left, top, right, bottom)."""
  rng = np.random.default_rng(seed)
  y, x, h, w = crops.draw_box((image.height, image.width), rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
  return x, y, x + w, y + h


def _expected(image, size, seed):
  return image.crop(_noted(image, seed)).resize((size, size), Image.Resampling.BICUBIC)


def test_crops_are_antialiased_bicubic_as_pillow_s(photos):
  for photo, seed, size in itertools.product(photos, range(8), (100, 224)):  # enlarged as well as reduced
    data = _encode(photo, quality=92)
    assert _difference(_crop(data, size, seed), _expected(Image.open(io.BytesIO(data)), size, seed)) < 0.5


def test_pillow_stands_in_where_there_is_no_faster_library(photos, monkeypatch, capsys):
  cuts = [(_encode(photo, quality=92), seed) for photo in photos for seed in range(4)]
  fast = [_crop(data, 100, seed).astype(int) for data, seed in cuts]
  resizing.say_if_slow()
  monkeypatch.setattr(resizing, "FAST", False)
  difference = np.array([np.abs(_crop(cut[0], 100, cut[1]) - want) for cut, want in zip(cuts, fast, strict=True)])
  assert difference.max() <= 3
  assert (difference > 1).mean() < 1e-3
  assert capsys.readouterr().out == ""
  resizing.say_if_slow()
  assert "cykooz-resizer is not installed" in capsys.readouterr().out


def test_large_images_are_decoded_at_a_lower_resolution(photos):
  large = photos[0].resize((3200, 2135))
  data, size = _encode(large, quality=95), 64
  for reduction in (2, 4, 8):
    assert transforms.decode_jpeg(data, reduction).shape == (-(-2135 // reduction), 3200 // reduction, 3)
  for seed in range(4):
    assert _difference(_crop(data, size, seed), _expected(large, size, seed)) < 0.5


@pytest.mark.parametrize(
  ("side", "reduction"), [(100, 1), (127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (640, 8)]
)
def test_a_reduced_image_still_has_two_pixels_for_each_of_the_crop(photos, side, reduction):
  data = _encode(photos[0].resize((640, 640)))
  whole = -(-side // reduction)
  part = Image.fromarray(transforms.decode_jpeg(data, reduction)[:whole, :whole])
  expected = part.resize((32, 32), Image.Resampling.BICUBIC, (0, 0, side / reduction, side / reduction))
  assert np.abs(crops.cut(data, crops.Box(0, 0, side, side), 32) - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize(
  ("shape", "size", "ratio", "resized", "corner"),
  [  # worked out by hand from timm's rule; timm 1.0.31 with torchvision 0.28 gave the same pixels
    ((640, 427), 224, 0.875, (383, 256), (80, 16)),
    ((640, 427), 224, 0.9, (371, 248), (74, 12)),
    ((640, 427), 224, 1.0, (335, 224), (56, 0)),
    ((427, 640), 384, 1.0, (384, 575), (0, 96)),
    ((200, 150), 224, 0.875, (341, 256), (58, 16)),
  ],
)
def test_evaluation_sees_what_pillow_resizes(photos, shape, size, ratio, resized, corner):
  for photo in photos:
    image = photo.resize(shape)
    expected = np.asarray(image.resize(resized, Image.Resampling.BICUBIC))
    expected = expected[corner[1] : corner[1] + size, corner[0] : corner[0] + size]
    view = crops.center_crop(image, size, crop_ratio=ratio, interpolation="bicubic")
    np.testing.assert_array_equal(view, expected)


def _odd(photo):
  """Every kind of file that is not an ordinary JPEG but may lie in a training set."""
  grey = photo.convert("L")
  deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
  frames = dict(save_all=True, append_images=[Image.new("RGB", photo.size, "red")])
  exif = Image.Exif()
  exif[0x0112] = 9  # there are eight
  return {
    "cmyk.jpg": _encode(photo.convert("CMYK")),
    "png named .JPEG": _encode(photo, "png"),
    "1x1.jpg": _encode(photo.resize((1, 1))),
    "1x1.png": _encode(photo.resize((1, 1)), "png"),
    "1x300.jpg": _encode(photo.resize((1, 300))),
    "grey.jpg": _encode(grey),
    "16-bit.png": _encode(deep, "png"),
    "palette.png": _encode(photo.quantize(64), "png"),
    "transparent.png": _encode(Image.merge("RGBA", (*photo.split(), grey)), "png"),
    "animated.gif": _encode(photo, "gif", **frames),
    "animated.webp": _encode(photo, "webp", lossless=True, **frames),
    "progressive.jpg": _encode(photo, progressive=True),
    "rgb.jpg": _encode(photo, keep_rgb=True),
    "odd orientation.jpg": _encode(photo, exif=exif),
    "broken metadata.jpg": _encode(photo, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "junk at the end.jpg": _encode(photo) + b"junk",
  }


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_odd_images_train_as_they_evaluate(photos, capfd):
  for name, data in _odd(photos[0].resize((120, 80))).items():
    upright = transforms.open_image(data)
    np.testing.assert_array_equal(transforms.decode(data), np.asarray(upright), err_msg=name)
    assert _difference(_crop(data, 64, 3), _expected(upright, 64, 3)) < 0.5, name
  assert capfd.readouterr().err == ""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_before_the_crop(photos, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = _encode(photos[1].resize((640, 400)), quality=95, exif=exif)
  upright = transforms.open_image(data)
  assert upright.size == ((640, 400) if orientation < 5 else (400, 640))
  np.testing.assert_array_equal(transforms.decode(data), np.asarray(upright))
  assert _difference(_crop(data, 224, 5), _expected(upright, 224, 5)) < 0.5
  assert _difference(_crop(data, 40, 5), _expected(upright, 40, 5)) < 3  # decoded at half the resolution


def test_damaged_images_are_refused_without_a_noise(photos, capfd):
  small = photos[0].resize((120, 80))
  whole = {form: _encode(small, form) for form in ("jpeg", "png", "gif", "webp")}
  damaged = [data[: int(len(data) * share)] for data in whole.values() for share in (0.1, 0.5, 0.9)]
  damaged += [whole["jpeg"][:-2], _encode(small, progressive=True)[:-200], _encode(small.convert("L"))[:-20]]
  damaged += [b"", b"nothing", b"\xff\xd8\xff\xe0", whole["png"][:40] + bytes(40) + whole["png"][80:]]
  for data in damaged:
    for read in (transforms.decode, transforms.open_image, _crop):
      with pytest.raises(transforms.ImageError):
        read(data)
  assert capfd.readouterr().err == ""


def test_an_absurd_size_in_the_header_asks_for_no_memory(photos):
  data = bytearray(_encode(photos[0]))
  start = data.index(b"\xff\xc0") + 5
  data[start : start + 4] = b"\xff\xdc\xff\xdc"  # 65,500 x 65,500
  with pytest.raises(transforms.ImageError):
    _crop(bytes(data))
