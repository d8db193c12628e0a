"""Transforms of images with their label maps, against plain NumPy; and which label maps can be read."""

import io
import pathlib

import cv2
import numpy as np
from PIL import Image
import pytest
from tars import encode, photographs

from mlpvision.data import canvases, dense_transforms as dense, label_maps
from mlpvision.data.image_files import ImageError
from mlpvision.errors import UserError

_DATA = pathlib.Path(__file__).parent.parent / "data"


@pytest.mark.parametrize(
  ("shape", "ratio", "expected"),
  [
    ((512, 683), 1.0, (512, 683)),
    ((683, 512), 1.0, (683, 512)),
    ((480, 640), 0.5, (256, 341)),
    ((300, 3000), 1.0, (205, 2048)),  # the longer side decides
    ((333, 500), 1.2345, (632, 949)),  # 632 = int(512 * 1.2345), and 500 * 632 / 333 = 948.9
    ((1, 9000), 1.0, (1, 2048)),
  ],
)
def test_fit_keeps_the_ratio_of_the_sides(shape, ratio, expected):
  assert dense.fit(shape, (2048, 512), ratio) == dense.fit(shape, (512, 2048), ratio) == expected


def test_resized_maps_have_no_new_values_and_lie_on_the_image():
  labels = np.kron(np.uint8([[1, 5], [7, 3]]), np.ones((20, 30), np.uint8))
  image = np.repeat(labels[..., None] * 30, 3, 2)
  for size in ((40, 60), (57, 91), (13, 17)):
    small, image_small = dense.resize_map(labels, size), dense.resize(image, size)
    assert small.shape == image_small.shape[:2] == size
    assert set(np.unique(small)) == {1, 3, 5, 7}
    edges = 1 - (image_small[..., 0] == small * 30).mean()
    assert edges <= 3 * sum(size) / np.prod(size)  # where the image mixes two classes


def test_crops_reach_all_places_and_prefer_several_classes():
  labels = np.zeros((40, 100), np.uint8)
  labels[:, 80:] = 1

  def crops(**options):
    rng = np.random.default_rng(0)
    return [dense.draw_crop(labels, 32, rng, **options) for _ in range(300)]

  boxes = crops(cat_max_ratio=1.0)
  assert {box.y for box in boxes} == set(range(9))
  assert min(box.x for box in boxes) == 0
  assert max(box.x for box in boxes) == 68
  assert {(box.height, box.width) for box in boxes} == {(32, 32)}

  def mixed(boxes):
    shares = [dense.crop(labels, box).mean() for box in boxes]
    return np.mean([max(share, 1 - share) < 0.75 for share in shares])

  # From 57 to 68, an x is good: 12 of 69, and 1 - (57 / 69)^11 = 0.88 with ten more draws.
  assert 0.1 < mixed(boxes) < 0.25
  assert 0.82 < mixed(crops(cat_max_ratio=0.75)) < 0.94


def test_pixels_without_a_label_do_not_count_in_crops():
  labels = np.full((64, 64), dense.IGNORE, np.uint8)
  labels[::8, ::2], labels[::8, 1::2] = 3, 4
  rng, alone = np.random.default_rng(1), np.random.default_rng(1)
  assert dense.draw_crop(labels, 16, rng, cat_max_ratio=0.75)[:2] == tuple(alone.integers(49, size=2))  # the first
  for value in (9, dense.IGNORE):  # one class, or none: the last of eleven
    rng, alone = np.random.default_rng(1), np.random.default_rng(1)
    box = dense.draw_crop(np.full((64, 64), value, np.uint8), 16, rng, cat_max_ratio=0.75)
    assert box[:2] == tuple([alone.integers(49, size=2) for _ in range(11)][-1])
  assert dense.draw_crop(labels[:10], 16, rng, cat_max_ratio=1.0)[0::2] == (0, 10)


def _directly(image, brightness, contrast, contrast_first, saturation, hue):
  """mmsegmentation's PhotoMetricDistortion for given numbers, value by value."""

  def convert(values, factor=1, addition=0):
    return np.clip(values.astype(np.float32) * factor + addition, 0, 255).astype(np.uint8)

  image = convert(image, addition=brightness) if brightness is not None else image
  image = convert(image, contrast) if contrast is not None and contrast_first else image
  if saturation is not None:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = convert(hsv[..., 1], saturation)
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
  if hue is not None:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + hue) % 180
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
  return convert(image, contrast) if contrast is not None and not contrast_first else image


def test_photometric_distortion_equals_its_definition():
  image = np.asarray(photographs(1)[0])
  rng = np.random.default_rng(0)
  drawn = [dense.draw_distortion(rng) for _ in range(400)]
  for distortion in [*drawn[:60], dense.Distortion(None, None, False, None, 0), dense.Distortion(*[None] * 5)]:
    np.testing.assert_array_equal(dense.distort(image, distortion), _directly(image, *distortion))
  for field, low, high in (("brightness", -32, 32), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5), ("hue", -18, 17)):
    values = [getattr(distortion, field) for distortion in drawn if getattr(distortion, field) is not None]
    assert 160 < len(values) < 240
    assert low <= min(values) < low + 0.1 * (high - low) < high - 0.1 * (high - low) < max(values) <= high
  assert 160 < sum(distortion.contrast_first for distortion in drawn) < 240


def test_padding_and_flipping():
  image, labels = np.asarray(photographs(1, size=(20, 10))[0]), np.arange(200, dtype=np.uint8).reshape(10, 20)
  padded, padded_labels = dense.pad(image, labels, 24)
  assert (padded.shape, padded_labels.shape) == ((24, 24, 3), (24, 24))
  assert (padded[:10, :20] == image).all()
  assert (padded_labels[:10, :20] == labels).all()
  assert not padded[10:].any()
  assert not padded[:, 20:].any()
  assert (padded_labels[10:] == 255).all()
  assert (padded_labels[:, 20:] == 255).all()
  assert (dense.flip(labels) == labels[:, ::-1]).all()
  assert (dense.flip(image) == image[:, ::-1]).all()


def test_canvases_are_few_and_large_enough():
  assert [canvases.side(n) for n in (0, 1, 32, 33, 256, 257, 512, 513, 683, 1024, 1025, 3000)] == [
    *(32, 32, 32, 64, 256, 320, 512, 640, 768, 1024, 1280, 3072)
  ]
  assert canvases.shape((683, 31)) == (768, 32)


def test_zero_is_reduced_as_in_the_original():
  golden = np.load(_DATA / "miou.npz")
  raw, reduced = golden["raw_ade_label"], golden["reduced_label"]
  np.testing.assert_array_equal(label_maps.indices(raw.reshape(4, -1), 150, reduce_zero=True).ravel(), reduced)
  every = np.arange(255, dtype=np.uint8)[None]
  np.testing.assert_array_equal(label_maps.indices(every, 254, reduce_zero=True)[0], [255, *range(254)])


@pytest.mark.parametrize("reduce_zero", [False, True])
def test_an_index_beyond_the_classes_is_refused(reduce_zero):
  labels = np.array([[0, 3, 255]], np.uint8)
  assert label_maps.indices(labels, 3 + (not reduce_zero), reduce_zero=reduce_zero).tolist() == [
    [255, 2, 255] if reduce_zero else [0, 3, 255]
  ]
  index, classes = (2, 2) if reduce_zero else (3, 3)
  with pytest.raises(
    UserError, match=f"has the index {index}.*there are {classes} classes, 0 to {classes - 1}"
  ) as raised:
    label_maps.indices(labels, classes, reduce_zero=reduce_zero)
  assert ("stored as 3" if reduce_zero else "data.reduce_zero_label=True") in str(raised.value)


_LABELS = np.arange(300, dtype=np.uint8).reshape(15, 20) % 12


def _palette():
  image = Image.fromarray(_LABELS).convert("P")
  image.putdata(_LABELS.ravel().tolist())
  image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
  return image


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_maps_are_gray_or_have_a_palette(bits):
  image, options = (_palette(), {"bits": bits}) if bits else (Image.fromarray(_LABELS), {})
  image.save(buffer := io.BytesIO(), "PNG", **options)
  assert label_maps.size(buffer.getvalue()) == (15, 20)
  np.testing.assert_array_equal(label_maps.decode(buffer.getvalue()), _LABELS)


_WRONG = {
  "16 bits per channel, gray": encode(Image.fromarray(_LABELS.astype(np.uint16) * 300), "PNG"),
  "8 bits per channel, RGB;": encode(Image.fromarray(_LABELS).convert("RGB"), "PNG"),
  "RGB with alpha": encode(Image.fromarray(_LABELS).convert("RGBA"), "PNG"),
  "gray with alpha": encode(Image.fromarray(_LABELS).convert("LA"), "PNG"),
  "1 bits per channel, gray": encode(Image.fromarray(_LABELS > 3), "PNG"),
  "is a JPEG": encode(Image.fromarray(_LABELS), "JPEG"),
}


@pytest.mark.parametrize("what", _WRONG)
def test_maps_of_another_kind_end_a_run(what):
  for read in (label_maps.size, label_maps.decode):
    with pytest.raises(UserError, match=f"{what}.*must be a PNG with 8 bits, gray or with a palette") as raised:
      read(_WRONG[what])
    assert not isinstance(raised.value, ImageError)


@pytest.mark.parametrize("length", [0, 20, -40])
def test_damaged_maps_are_replaced(length):
  data = encode(Image.fromarray(_LABELS), "PNG")
  for damaged in (data[:length], bytes(len(data))):
    with pytest.raises(ImageError):
      label_maps.decode(damaged)
