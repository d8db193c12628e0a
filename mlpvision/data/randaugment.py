"""RandAugment (Cubuk et al., arXiv 1909.13719) in the two ways that published recipes use.

`rand-m9-mstd0.5-inc1` is timm's notation and timm's meaning (DeiT, Swin, and with them S2-MLP, FF, ResMLP, AS-MLP): two
of 15 operations, each applied half the time, at a level drawn around 9. `randaug(2,15)` is big_vision's, for the Mixer
paper's "2 layers, magnitude 15": two of 16 operations, always applied, all at one level, which may exceed 10.

At level 10, where one draw of timm's recipe in 44 is clipped to, PosterizeIncreasing keeps 0 bits: the image is black,
as with the Pillow versions of the papers' time. Pillow 13 refuses 0 bits, and timm 1.0.31 stops there with it.

Where big_vision's operations are not Pillow's, they are kept as they are, since its results come from them:
  - Solarize's threshold, 25.6 x level, wraps in TensorFlow's conversion to uint8: it is 128 at level 15, and 0 at the
    levels 10 and 20, where the whole image is inverted.
  - Contrast moves away from the number of pixels / 256 (196 at 224 x 224, at most 255), not from their mean.
  - Posterize with 0 bits keeps one.
  - Geometric operations take the nearest pixel, shear about the first pixel's centre, and fill with grey 128.
One thing is not: it cuts grey values and Sharpness's smooth image off, which are rounded here, as in Pillow.
"""

from collections.abc import Callable
import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np

from mlpvision.data import image_ops
from mlpvision.errors import UserError

_GREY = (128, 128, 128)
_NOTATIONS = (
  "understood are 'rand-m9-n2-p0.5-mstd0.5-inc1' (timm's; all but 'rand' may be left out; m 0 to 10, n from 1, "
  "p 0 to 1, mstd 0 to 100) and 'randaug(2,15)' (big_vision's: layers from 1, magnitude 0 to 20)"
)


# Arguments: functions of the level and of the sign, 1 or -1.


def _nothing(level, sign):
  return None


def _signed(at_ten):
  return lambda level, sign: sign * level / 10 * at_ten


def _whole(at_ten):
  return lambda level, sign: int(level / 10 * at_ten)


def _whole_decreasing(start, at_ten):
  return lambda level, sign: start - int(level / 10 * at_ten)


def _factor(level, sign):
  return level / 10 * 1.8 + 0.1


def _factor_increasing(level, sign):
  return max(0.1, 1 + sign * level / 10 * 0.9)


class Op(NamedTuple):
  """One operation.

  Attributes:
    argument: (level, sign) -> what `apply` needs; sign is 1 or -1.
    apply: (image, argument, fill) -> a new image; images are uint8 [H, W, 3] in RGB, fill is the colour from outside.
  """

  argument: Callable
  apply: Callable


_TIMM = {
  "AutoContrast": Op(_nothing, image_ops.autocontrast),
  "Equalize": Op(_nothing, image_ops.equalize),
  "Invert": Op(_nothing, image_ops.invert),
  "Rotate": Op(_signed(30), image_ops.cubic(image_ops.rotation)),
  "SolarizeAdd": Op(_whole(110), image_ops.solarize_add),
  "ShearX": Op(_signed(0.3), image_ops.cubic(image_ops.shear_x)),
  "ShearY": Op(_signed(0.3), image_ops.cubic(image_ops.shear_y)),
  "TranslateXRel": Op(_signed(0.45), image_ops.cubic(image_ops.shift_x)),
  "TranslateYRel": Op(_signed(0.45), image_ops.cubic(image_ops.shift_y)),
}
# The operations of each kind, by the names of their source.
OPS = {
  "timm": _TIMM
  | {
    "Posterize": Op(_whole(4), image_ops.posterize),
    "Solarize": Op(_whole(256), image_ops.solarize),
    "Color": Op(_factor, image_ops.color),
    "Contrast": Op(_factor, image_ops.contrast),
    "Brightness": Op(_factor, image_ops.brightness),
    "Sharpness": Op(_factor, image_ops.sharpness),
  },
  "timm_increasing": _TIMM
  | {
    "PosterizeIncreasing": Op(_whole_decreasing(4, 4), image_ops.posterize),
    "SolarizeIncreasing": Op(_whole_decreasing(256, 256), image_ops.solarize),
    "ColorIncreasing": Op(_factor_increasing, image_ops.color),
    "ContrastIncreasing": Op(_factor_increasing, image_ops.contrast),
    "BrightnessIncreasing": Op(_factor_increasing, image_ops.brightness),
    "SharpnessIncreasing": Op(_factor_increasing, image_ops.sharpness),
  },
  "big_vision": {
    "AutoContrast": Op(_nothing, image_ops.autocontrast),
    "Equalize": Op(_nothing, image_ops.equalize),
    "Invert": Op(_nothing, image_ops.invert),
    "Rotate": Op(_signed(30), image_ops.nearest(image_ops.rotation)),
    "Posterize": Op(lambda level, sign: max(1, int(level / 10 * 4)), image_ops.posterize),
    "Solarize": Op(lambda level, sign: int(level / 10 * 256) % 256, image_ops.solarize),
    "Color": Op(_factor, image_ops.color),
    "Contrast": Op(_factor, image_ops.contrast_by_size),
    "Brightness": Op(_factor, image_ops.brightness),
    "Sharpness": Op(_factor, image_ops.sharpness),
    "ShearX": Op(_signed(0.3), image_ops.nearest(image_ops.shear_x)),
    "ShearY": Op(_signed(0.3), image_ops.nearest(image_ops.shear_y)),
    "TranslateX": Op(_signed(100), image_ops.nearest(image_ops.shift_x_pixels)),
    "TranslateY": Op(_signed(100), image_ops.nearest(image_ops.shift_y_pixels)),
    "Cutout": Op(_whole(40), image_ops.cutout),
    "SolarizeAdd": Op(_whole(110), image_ops.solarize_add),
  },
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
  """Applies operations drawn at random; `parse` makes it from a recipe's notation.

  Attributes:
    kind: a key of OPS, whose operations are drawn uniformly and with replacement.
    layers: how many are drawn.
    probability: with which each of them is applied.
    magnitude, spread: mean and standard deviation of the level, drawn for each applied operation.
    limit: levels are clipped to [0, limit].
    fill: the colour that comes in from outside the image, RGB in 0 to 255.
  """

  kind: str
  layers: int
  probability: float
  magnitude: int
  spread: float
  limit: int
  fill: tuple[int, int, int]

  def draw(self, rng: np.random.Generator) -> list[tuple[str, Any]]:
    """The operations for one image as a list of (name, argument), those left out by chance not among them."""
    names, drawn = tuple(OPS[self.kind]), []
    for _ in range(self.layers):
      name = names[rng.integers(len(names))]
      if rng.random() >= self.probability:
        continue
      level = min(max(rng.normal(self.magnitude, self.spread), 0.0), self.limit)
      argument = OPS[self.kind][name].argument(level, 1 if rng.random() < 0.5 else -1)
      drawn.append((name, (argument, *rng.random(2)) if name == "Cutout" else argument))
    return drawn

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3] in RGB -> the same shape; `image` is not written to, but is the result if nothing is applied."""
    for name, argument in self.draw(rng):
      image = OPS[self.kind][name].apply(image, argument, self.fill)
    return image


def parse(spec: str, fill: tuple[int, int, int]) -> RandAugment:
  """A RandAugment from the notation of timm or of big_vision.

  Args:
    spec: "rand" with any of "-m9" (magnitude, 0 to 10; default 10), "-n2" (layers; 2), "-p0.5" (probability; 0.5),
      "-mstd0.5" (standard deviation of the level; 0) and "-inc1" (every operation gets stronger with the level; 0),
      with the meaning and the defaults of timm 1.0 (older ones took inc0 for inc1); or "randaug(2,15)": layers, and a
      magnitude of 0 to 20.
    fill: colour that geometric operations bring in, RGB in 0 to 255: timm's recipes take the dataset's mean.
      big_vision's always take grey 128.

  Raises:
    UserError: the notation is none of these, or a value is out of its range.
  """
  if match := re.fullmatch(r"randaug\((\d+),(\d+)\)", spec):
    layers, magnitude, limit = int(match[1]), int(match[2]), 20  # above 20, Posterize's bits have no meaning
    augment = RandAugment("big_vision", layers, 1.0, magnitude, 0.0, limit, _GREY)
  else:
    start, *settings = spec.split("-")
    matches = [re.fullmatch(r"((?:m|n|inc)(?=\d+$)|p|mstd)(\d+(?:\.\d+)?)", setting) for setting in settings]
    wrong = [setting for setting, match in zip(settings, matches, strict=True) if match is None]
    values = {match[1]: float(match[2]) for match in matches if match}
    if start != "rand" or wrong or len(values) < len(settings):
      what = f": {wrong[0]!r} is not understood" if wrong and start == "rand" else ""
      raise UserError(f"cannot read the RandAugment {spec!r}{what}; {_NOTATIONS}")
    kind = "timm_increasing" if values.get("inc", 0) else "timm"
    layers, magnitude, limit = int(values.get("n", 2)), int(values.get("m", 10)), 10
    augment = RandAugment(kind, layers, values.get("p", 0.5), magnitude, values.get("mstd", 0.0), limit, tuple(fill))
  if layers < 1 or magnitude > limit or augment.probability > 1 or augment.spread > 100:
    raise UserError(f"RandAugment {spec!r}: a value is out of its range; {_NOTATIONS}")
  return augment
