"""RandAugment: each operation against Pillow's, and the draws by statistics."""

import math
import pickle

import cv2
import numpy as np
from PIL import Image, ImageEnhance
import pytest
from sklearn.datasets import load_sample_images

from benchmarks import timm_randaugment
from mlpvision.data import randaugment
from mlpvision.errors import UserError

FILL = (124, 116, 104)
RECIPE = "rand-m9-mstd0.5-inc1"
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
DECREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")


@pytest.fixture(scope="module")
def photos():
  """Two photographs at 224 x 224 and one at 427 x 640."""
  china, flower = load_sample_images().images
  return [cv2.resize(photo, (224, 224), interpolation=cv2.INTER_AREA) for photo in (china, flower)] + [china]


def apply(kind, name, image, level, sign=1, fill=FILL):
  op = randaugment.OPS[kind][name]
  return op.apply(image, op.argument(level, sign), fill)


@pytest.mark.parametrize("level", [0, 3, 9, 10])
@pytest.mark.parametrize(
  ("kind", "name"),
  [("timm_increasing", name) for name in randaugment.OPS["timm_increasing"]] + [("timm", name) for name in DECREASING],
)
def test_operation_equals_pillows(photos, kind, name, level):
  """Cubic interpolation differs by OpenCV's kernel and rounding, grey by one in some pixels; the rest is equal."""
  for photo in photos:
    for sign in (1, -1):
      original = photo.copy()
      out = apply(kind, name, photo, level, sign)
      expected = np.asarray(timm_randaugment.apply(name, Image.fromarray(photo), level, sign, FILL))
      assert out.dtype == np.uint8
      assert out.shape == photo.shape
      difference = np.abs(out.astype(int) - expected).mean()
      assert difference <= (2 if name in GEOMETRIC else 0.01), (photo.shape, sign)
      np.testing.assert_array_equal(photo, original)


def test_the_operations_are_timms_and_big_visions():
  assert len(randaugment.OPS["timm"]) == len(randaugment.OPS["timm_increasing"]) == 15
  assert set(timm_randaugment.INCREASING) == set(randaugment.OPS["timm_increasing"])
  assert set(DECREASING) == set(randaugment.OPS["timm"]) - set(randaugment.OPS["timm_increasing"])
  assert len(randaugment.OPS["big_vision"]) == 16


@pytest.mark.parametrize("name", randaugment.OPS["timm_increasing"])
def test_operation_on_flat_grey_and_tiny_images(photos, name):
  """As Pillow; in tiny images only what does not interpolate."""
  grey = np.repeat(photos[0][..., :1], 3, -1)
  one_flat_channel = photos[0].copy()
  one_flat_channel[..., 1] = 77
  images = [np.full((224, 224, 3), (0, 77, 255), np.uint8), grey, one_flat_channel]
  tiny = [photos[0][:height, :width].copy() for height, width in ((1, 1), (1, 5), (5, 1), (2, 2), (3, 4))]
  for image in images + tiny:
    out = apply("timm_increasing", name, image, 9)
    assert out.shape == image.shape
    if name in GEOMETRIC and image.size < 100:
      continue
    expected = np.asarray(timm_randaugment.apply(name, Image.fromarray(image), 9, 1, FILL))
    difference = np.abs(out.astype(int) - expected)
    assert difference.mean() <= (2 if name in GEOMETRIC else 0.01) or difference.max() <= 1, image.shape


def test_big_vision_arguments_at_level_15():
  """The numbers that follow from its table: 45 degrees, 0.45, 150 pixels, factor 2.8, 6 bits, +165, half-side 60."""
  arguments = {name: op.argument(15, -1) for name, op in randaugment.OPS["big_vision"].items()}
  assert arguments == {
    **dict.fromkeys(("AutoContrast", "Equalize", "Invert")),
    **dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), pytest.approx(2.8)),
    **dict.fromkeys(("ShearX", "ShearY"), pytest.approx(-0.45)),
    **dict.fromkeys(("TranslateX", "TranslateY"), -150),
    **{"Rotate": -45, "Posterize": 6, "Solarize": 128, "SolarizeAdd": 165, "Cutout": 60},
  }


@pytest.mark.parametrize("level", [1, 10, 15, 20])
def test_big_vision_values(photos, level):
  for photo in photos:
    values = photo.astype(int)
    threshold, factor = int(25.6 * level) % 256, np.float32(0.1 + 0.18 * level)
    expected = {
      "Posterize": values // (size := 2 ** (8 - max(1, int(0.4 * level)))) * size,
      "Solarize": np.where(values < threshold, values, 255 - values),
      "SolarizeAdd": np.where(values < 128, np.minimum(values + 11 * level, 255), values),
      "Contrast": (mean := min(255, photo.size // 3 // 256)) + factor * (values - mean).astype(np.float32),
      "Brightness": factor * values.astype(np.float32),
    }
    for name, wanted in expected.items():
      out = apply("big_vision", name, photo, level)
      assert np.abs(out - np.clip(wanted, 0, 255).astype(int)).mean() < 0.01, name
    for name, enhance in (("Color", ImageEnhance.Color), ("Sharpness", ImageEnhance.Sharpness)):
      expected = np.asarray(enhance(Image.fromarray(photo)).enhance(0.1 + 0.18 * level)).astype(int)
      assert np.abs(apply("big_vision", name, photo, level) - expected).mean() < 0.01, name


@pytest.mark.parametrize("sign", [1, -1])
def test_big_vision_geometry_takes_the_nearest_pixel(photos, sign):
  photo = photos[2][:150, :200].copy()
  v, u = np.mgrid[:150, :200].astype(float)
  cos, sin = math.cos(math.radians(sign * 27)), math.sin(math.radians(sign * 27))
  sources = {
    "Rotate": (cos * (u - 99.5) - sin * (v - 74.5) + 99.5, sin * (u - 99.5) + cos * (v - 74.5) + 74.5),
    "ShearX": (u + sign * 0.27 * v, v),
    "ShearY": (u, v + sign * 0.27 * u),
    "TranslateX": (u + sign * 90, v),
    "TranslateY": (u, v + sign * 90),
  }
  for name, (x, y) in sources.items():
    x, y = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (x >= 0) & (x < 200) & (y >= 0) & (y < 150)
    expected = np.where(inside[..., None], photo[y.clip(0, 149), x.clip(0, 199)], 128)
    difference = np.abs(apply("big_vision", name, photo, 9, sign, (128, 128, 128)).astype(int) - expected)
    assert difference.mean() < 0.5, name  # halves go either way
    assert (difference.max(-1) > 0).mean() < 0.05, name


def test_cutout_is_a_grey_square_clipped_at_the_border():
  image = np.zeros((100, 200, 3), np.uint8)
  cutout = randaugment.OPS["big_vision"]["Cutout"].apply
  out = cutout(image, (20, 0.5, 0.05), (128, 128, 128))
  assert not image.any()
  assert (out[30:70, :30] == 128).all()
  assert np.count_nonzero(out) == 40 * 30 * 3


def draws(spec, count=10_000):
  augment, rng = randaugment.parse(spec, FILL), np.random.default_rng(0)
  return [augment.draw(rng) for _ in range(count)]


def assert_uniform(names, kind):
  counts = np.array([names.count(name) for name in randaugment.OPS[kind]])
  expected = len(names) / len(counts)
  assert counts.sum() == len(names)
  assert ((counts - expected) ** 2 / expected).sum() < 40  # chi-square, 14 or 15 degrees of freedom: p < 0.001 beyond


def test_statistics_of_timms_kind():
  drawn = draws(RECIPE)
  lengths = np.bincount([len(operations) for operations in drawn], minlength=3) / len(drawn)
  np.testing.assert_allclose(lengths, [0.25, 0.5, 0.25], atol=0.02)
  operations = [operation for operations in drawn for operation in operations]
  assert_uniform([name for name, _ in operations], "timm_increasing")

  units = {"Rotate": 3, "ShearX": 0.03, "ShearY": 0.03, "TranslateXRel": 0.045, "TranslateYRel": 0.045}
  levels = np.array([argument / units[name] for name, argument in operations if name in units])
  assert abs((levels > 0).mean() - 0.5) < 0.03
  levels = np.abs(levels)
  assert abs(levels.mean() - 9) < 0.03
  assert abs(levels.std() - 0.5) < 0.03
  assert levels.max() == pytest.approx(10)  # clipped: 2 % would lie above
  factors = np.array([argument for name, argument in operations if name == "ColorIncreasing"])
  assert abs((factors > 1).mean() - 0.5) < 0.06


def test_statistics_of_big_visions_kind():
  drawn = draws("randaug(2,15)")
  assert {len(operations) for operations in drawn} == {2}
  operations = [operation for operations in drawn for operation in operations]
  assert_uniform([name for name, _ in operations], "big_vision")
  assert {argument for name, argument in operations if name == "Rotate"} == {45, -45}
  places = np.array([argument for name, argument in operations if name == "Cutout"])
  assert set(places[:, 0]) == {60}
  np.testing.assert_allclose(places[:, 1:].mean(0), 0.5, atol=0.03)
  np.testing.assert_allclose(places[:, 1:].std(0), 1 / math.sqrt(12), atol=0.03)


def test_layers_are_drawn_with_replacement():
  drawn = draws("rand-m9-n3-p1")
  assert {len(operations) for operations in drawn} == {3}
  same = [operations[0][0] == operations[1][0] for operations in drawn]
  assert abs(np.mean(same) - 1 / 15) < 0.01


@pytest.mark.parametrize("spec", [RECIPE, "randaug(2,15)"])
def test_a_seed_decides_and_the_image_is_kept(photos, spec):
  augment = randaugment.parse(spec, FILL)
  again = pickle.loads(pickle.dumps(augment))
  image = photos[0].copy()
  image.flags.writeable = False
  changed = 0
  for seed in range(40):
    out = augment(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(out, again(image, np.random.default_rng(seed)))
    np.testing.assert_array_equal(image, photos[0])
    expected = image
    for name, argument in augment.draw(np.random.default_rng(seed)):
      expected = randaugment.OPS[augment.kind][name].apply(expected, argument, augment.fill)
    np.testing.assert_array_equal(out, expected)
    changed += (out != image).any()
  assert changed > 20
  assert augment(np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0)).shape == (1, 1, 3)


def test_parse_takes_timms_defaults():
  assert randaugment.parse("rand", FILL) == randaugment.parse("rand-m10-n2-p0.5-mstd0-inc0", FILL)
  assert randaugment.parse(RECIPE, list(FILL)) == randaugment.parse("rand-inc1-n2-mstd0.5-m9-p0.5", FILL)
  assert randaugment.parse("rand-m9-inc0", FILL).kind == "timm"
  assert randaugment.parse("randaug(2,15)", FILL).fill == (128, 128, 128)


@pytest.mark.parametrize(
  "spec",
  ["", "9", "rand-", "rand-m", "rand-9", "rand-m9.5", "rand-m11", "rand-m-1", "rand-m9-m9", "rand-tweights", "rand-n0"]
  + ["rand-p1.5", "rand-mstd101", "rand-inc", "original-m9", "randaug", "randaug(2)", "randaug(2,21)", "randaug(0,9)"],
)
def test_a_wrong_notation_is_refused_with_the_right_ones(spec):
  with pytest.raises(UserError, match=r"rand-m9.*randaug\(2,15\)") as error:
    randaugment.parse(spec, FILL)
  assert repr(spec) in str(error.value)
