"""Pictures to arrays: against Pillow, and by statistics where chance is at work."""

import io

import numpy as np
from PIL import Image
import pytest

from mlpvision.data import crops, transforms
from mlpvision.errors import UserError


@pytest.fixture
def photo():
  """A smooth picture with one bright corner, 60 wide and 40 high."""
  y, x = np.mgrid[:40, :60]
  picture = np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)
  picture[:12, :12] = 255
  return Image.fromarray(picture)


def test_center_crop_equals_pillow(photo):
  out = crops.center_crop(photo, 24, crop_ratio=0.75, interpolation="bicubic")
  resized = photo.resize((48, 32), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(out, np.asarray(resized)[4:28, 12:36])


def test_center_crop_leaves_a_fitting_image_alone():
  image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
  out = crops.center_crop(Image.fromarray(image), 28, crop_ratio=1.0, interpolation="bicubic")
  np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (33, 17)])
def test_center_crop_of_any_shape(size):
  out = crops.center_crop(Image.new("RGB", size, "red"), 16, crop_ratio=0.875, interpolation="bilinear")
  assert out.shape == (16, 16, 3)
  assert (out == [255, 0, 0]).all()


def _encode(array):
  file = io.BytesIO()
  Image.fromarray(array).save(file, "png")
  return file.getvalue()


@pytest.mark.parametrize(("crop_ratio", "short"), [(0.9, 35), (0.875, 36), (1.0, 32), (0.95, 33)])
def test_the_shorter_side_is_rounded_down_as_the_originals_do(crop_ratio, short):
  """floor(32 / crop_ratio), so 32 / 0.9 = 35.6 gives 35: against Pillow's own resize to that size."""
  random = np.random.default_rng(0)
  image = Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8))
  out = crops.center_crop(image, 32, crop_ratio=crop_ratio, interpolation="bilinear")
  resized = image.resize((short * 64 // 48, short), Image.Resampling.BILINEAR)
  left, top = round((resized.width - 32) / 2), round((short - 32) / 2)
  np.testing.assert_array_equal(out, np.asarray(resized)[top : top + 32, left : left + 32])


@pytest.mark.parametrize("seed", range(4))
def test_a_label_map_follows_its_image(seed):
  """The map of a picture of large squares, cropped or moved, is the map of the cropped or moved picture."""
  random = np.random.default_rng(seed)
  labels = random.integers(0, 2, (6, 8), np.uint8).repeat(20, 0).repeat(20, 1)
  image = 255 * np.repeat(labels[..., None], 3, -1)
  box = crops.draw_box(labels.shape, random, scale=(0.3, 1.0), ratio=(0.75, 4 / 3))
  affine = crops.draw_affine(random, rotation=20.0, zoom=0.1, shift=4.0)
  for cropped, followed in (
    (crops.cut(image, box, 64), crops.cut_map(labels, box, 64)),
    (crops.warp(image, affine, 64), crops.warp_map(labels, affine, 64)),
  ):
    assert followed.shape == (64, 64)
    assert followed.dtype == labels.dtype
    seen = cropped[..., 0].astype(int)
    sure = (seen < 30) | (seen > 225)  # away from the edges of the squares
    assert sure.mean() > 0.7
    np.testing.assert_array_equal(followed[sure], seen[sure] > 127)


def test_boxes_have_their_share_of_the_area():
  """Each pixel holds its own coordinates, so a crop tells where it was."""
  rng = np.random.default_rng(0)
  ramp = np.zeros((200, 200, 3), np.uint8)
  ramp[..., 0], ramp[..., 1] = np.mgrid[:200, :200]
  areas, ratios, corners, encoded = [], [], [], _encode(ramp)
  for _ in range(400):
    image, shape = crops.with_shape(encoded)
    box = crops.draw_box(shape, rng, scale=(0.25, 0.75), ratio=(0.5, 2.0))
    crop = crops.cut(image, box, 32).astype(float)
    # A pixel of the crop shows the mean of its 32nd part.
    height, width = (np.ptp(crop[..., channel].mean(1 - channel)) * 32 / 31 for channel in (0, 1))
    corners.append([(crop[..., i].min() - side / 64) / (200 - side) for i, side in enumerate((height, width))])
    areas.append(height * width / 200**2)
    ratios.append(np.log(width / height))
  assert 0.23 < min(areas) < 0.27
  assert 0.73 < max(areas) < 0.77
  assert abs(np.mean(areas) - 0.5) < 0.03
  assert abs(np.mean(ratios)) < 0.06
  assert 0.62 < max(np.abs(ratios)) < 0.75
  assert np.abs(np.mean(corners, 0) - 0.5).max() < 0.06


def test_the_box_of_an_extreme_shape_is_central():
  strip = np.zeros((10, 1000, 3), np.uint8)
  strip[:, 400:600] = 255
  rng = np.random.default_rng(0)
  box = crops.draw_box((10, 1000), rng, scale=(0.9, 1), ratio=(0.75, 4 / 3))
  assert (crops.cut(strip, box, 8) == 255).all()
  assert box == (0, 493, 10, 13)  # 10 x 4 / 3 wide
  assert crops.draw_box((1000, 10), rng, scale=(0.9, 1), ratio=(0.75, 4 / 3)) == (493, 0, 13, 10)  # 10 / 0.75 high


@pytest.mark.parametrize(("shape", "moves"), [((20, 100), 1), ((100, 20), 0)])
def test_a_box_may_be_as_high_or_as_wide_as_the_image(shape, moves):
  rng = np.random.default_rng(0)
  boxes = [crops.draw_box(shape, rng, scale=(0.2, 0.2), ratio=(1, 1)) for _ in range(300)]
  assert {box[2:] for box in boxes} == {(20, 20)}
  assert {box[1 - moves] for box in boxes} == {0}
  assert {box[moves] for box in boxes} >= {0, 80}  # from one edge to the other


def test_an_affine_at_rest_is_the_identity():
  image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
  out = crops.warp(image, crops.Affine(0.0, 1.0, (0.0, 0.0)), 28)
  np.testing.assert_array_equal(out, image)


def test_affines_move_within_their_limits():
  dot = np.zeros((41, 41, 3), np.uint8)
  dot[19:22, 19:22] = 255
  centres = []
  for seed in range(200):
    affine = crops.draw_affine(np.random.default_rng(seed), rotation=15.0, zoom=0.15, shift=3.0)
    out = crops.warp(dot, affine, 41)
    ys, xs = np.nonzero(out[..., 0] > 100)
    centres.append((ys.mean() - 20, xs.mean() - 20))
  assert 2.5 < np.abs(centres).max() < 3.6
  assert np.abs(np.mean(centres, 0)).max() < 0.4


def test_an_affine_skips_no_pixels_of_a_large_image():
  rng = np.random.default_rng(0)
  grain = rng.integers(0, 2, (600, 400, 1), np.uint8).repeat(3, axis=2) * 255
  out = crops.warp(grain, crops.Affine(0.0, 1.0, (0.0, 0.0)), 28)
  inside = out[:, 6:22]  # 400 / 600 of the width
  assert 100 < inside.min() < inside.max() < 155
  assert not out[:, :4].any()


def _digit():
  grey = np.zeros((20, 30), np.uint8)
  grey[3:17, 5:9] = 200
  return grey


def _write(path, image, **options):
  image.save(path, **options)
  return path


def test_every_mode_reads_as_the_same_picture(tmp_path):
  grey = _digit()
  expected = np.repeat(grey[..., None], 3, 2)
  opaque = np.dstack([expected, np.full_like(grey, 255)])
  pictures = {
    "grey.png": Image.fromarray(grey),
    "colour.png": Image.fromarray(expected),
    "alpha.png": Image.fromarray(opaque),
    "grey_alpha.png": Image.fromarray(np.dstack([grey, np.full_like(grey, 255)]), "LA"),
    "palette.png": Image.fromarray(grey).convert("P"),
    "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
    "cmyk.tif": Image.fromarray(expected).convert("CMYK"),
  }
  for name, picture in pictures.items():
    read = transforms.open_image(_write(tmp_path / name, picture))
    assert read.mode == "RGB"
    np.testing.assert_allclose(np.asarray(read, int), expected, atol=1, err_msg=name)


def test_grey_of_32_bits_keeps_the_range_of_16(tmp_path):
  values = np.array([[0, 255, 256, 0x7FFF, 0xFFFF, 0x10000, 2**30]], np.int32)
  read = transforms.open_image(_write(tmp_path / "wide.tif", Image.fromarray(values)))
  assert np.asarray(read)[0, :, 0].tolist() == [0, 0, 1, 127, 255, 255, 255]


def test_transparent_pixels_are_white(tmp_path):
  picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
  assert (np.asarray(transforms.open_image(_write(tmp_path / "clear.png", picture))) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
  upright = Image.fromarray(np.repeat(_digit()[..., None], 3, 2))
  undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that lead from upright to stored
  stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
  exif = Image.Exif()
  exif[0x0112] = orientation
  read = transforms.open_image(_write(tmp_path / "turned.png", stored, exif=exif))
  np.testing.assert_array_equal(np.asarray(read), np.asarray(upright))


def test_bad_files_are_named(tmp_path):
  good = _write(tmp_path / "good.jpg", Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)))
  (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:400])
  (tmp_path / "text.png").write_text("not a picture")
  (tmp_path / "empty.png").write_bytes(b"")
  for name, message in (("cut.jpg", "damaged"), ("text.png", "not an image"), ("empty.png", "not an image")):
    with pytest.raises(transforms.ImageError, match=f"{name}: .*{message}"):
      transforms.open_image(tmp_path / name)
  with pytest.raises(UserError, match=r"gone\.png: there is no such file"):
    transforms.open_image(tmp_path / "gone.png")


def _grey(source):
  return np.asarray(transforms.open_image(source))[..., 0].astype(int)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_arrays_of_any_range_are_the_same_picture(dtype, channels):
  grey = np.linspace(0, 255, 20 * 30).astype(np.uint8).reshape(20, 30)
  expected, factor = grey, {"f": 1 / 255, "u": 257, "i": 257}.get(np.dtype(dtype).kind)
  values = grey.astype(float) * factor if factor else grey > 127
  if not factor:
    expected = np.where(grey > 127, 255, 0)
  array = np.broadcast_to(values.astype(dtype)[(..., *[None] * len(channels))], (20, 30, *channels)).copy()
  if channels == (4,):
    array[..., 3] = array.max()  # opaque
  assert np.abs(_grey(array) - expected).max() <= 1
  if np.dtype(dtype).kind == "f":
    assert np.abs(_grey((array * 255).astype(dtype)) - expected).max() <= 1


def test_pictures_of_floats_and_16_bits_are_not_black(tmp_path):
  grey = np.linspace(0, 255, 20 * 30).astype(np.uint8).reshape(20, 30)
  unit, full = (Image.fromarray((grey * factor).astype(np.float32)) for factor in (1 / 255, 1))
  deep = Image.fromarray(grey.astype(np.uint16) * 257)
  for picture in (unit, full, deep, Image.fromarray(grey.astype(np.int32) * 257)):
    for source in (picture, _write(tmp_path / "x.tif", picture)):
      assert np.abs(_grey(source) - grey).max() <= 1, picture.mode
  assert np.abs(_grey(_write(tmp_path / "x.png", deep)) - grey).max() <= 1


@pytest.mark.parametrize(
  ("low", "high", "dtype", "message"),
  [
    (-2.1, 2.6, np.float32, "-2.1 to 2.6.*normalized"),
    (-1, 1, np.float32, "negative"),
    (0, 1.2, np.float32, "neither 0 to 1 nor 0 to 255"),
    (0, 4095, np.float32, "neither"),
    (0, 65535, np.float32, "neither"),
    (0, np.nan, np.float32, "not finite"),
    (0, np.inf, np.float64, "not finite"),
    (-5, 300, np.int32, "negative"),
    (0, 255, np.uint16, "0 to 255 in more than 8 bits"),
    (0, 255, np.int64, "0 to 255 in more than 8 bits"),
    (0, 1, np.complex64, "complex"),
    (0, 1, object, "object"),
  ],
)
def test_a_range_that_cannot_be_told_is_refused(tmp_path, low, high, dtype, message):
  array = np.array([[low, high, (low + high) / 2]], dtype)
  sources = [array, np.repeat(array[..., None], 3, -1)]
  if array.dtype in (np.float32, np.int32, np.uint16):
    sources += [Image.fromarray(array), _write(tmp_path / "x.tif", Image.fromarray(array))]
  for source in sources:
    with pytest.raises(transforms.ImageError, match=message):
      transforms.open_image(source)


def test_what_is_zero_or_one_has_a_meaning():
  assert _grey(np.zeros((2, 2), np.float32)).max() == 0
  assert _grey(np.zeros((2, 2), np.uint16)).max() == 0
  assert _grey(np.array([[0.0, 1.0]])).tolist() == [[0, 255]]
  assert _grey(np.array([[0, 1]], np.uint8)).tolist() == [[0, 1]]


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (5, 5, 5), (3, 40, 50), (2, 40, 50, 3), (5, 5, 0)])
def test_an_array_of_another_shape_is_refused(shape):
  with pytest.raises(transforms.ImageError, match="an array of shape"):
    transforms.open_image(np.zeros(shape, np.uint8))
  for other in (None, 3, [[1, 2]], io.BytesIO(b"")):
    with pytest.raises(transforms.ImageError, match="must be a path"):
      transforms.open_image(other)
