"""RandAugment (Cubuk et al., arXiv 1909.13719) in the two variants that published recipes use.

`rand-m9-mstd0.5-inc1` is timm's notation (DeiT, Swin, and based on them S2-MLP, FF, ResMLP, AS-MLP): two of 15
operations, each applied with probability 1/2, at a level drawn around 9. `randaug(2,15)` is big_vision's notation, for
the Mixer paper's "2 layers, magnitude 15": two of 16 operations, always applied, at one level, which may exceed 10.

At level 10, to which timm's recipe clips one draw in 44, PosterizeIncreasing keeps 0 bits: the image is black, as with
the Pillow versions that the papers used. Pillow 13, and with it timm 1.0.31, raises an error instead.

Where big_vision's operations differ from Pillow's, they are reproduced, because its results depend on them:
  - Solarize's threshold, 25.6 x level, overflows in TensorFlow's conversion to uint8: it is 128 at level 15, and 0 at
    levels 10 and 20, where the whole image is inverted.
  - Contrast scales about the number of pixels / 256 (196 at 224 x 224, at most 255), not about their mean.
  - Posterize keeps at least one bit.
  - Geometric operations use the nearest pixel, shear about the first pixel's center, and fill with gray 128.
One difference is not reproduced: big_vision truncates gray values and Sharpness's smooth image; Pillow rounds them.
"""

from collections.abc import Callable
import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np

from mlpvision.data import image_ops
from mlpvision.errors import UserError

_GRAY = (128, 128, 128)
_NOTATIONS = (
  "write 'rand-m9-n2-p0.5-mstd0.5-inc1' (timm's; all parts but 'rand' are optional; m 0 to 10, n from 1, p 0 to 1, "
  "mstd 0 to 100) or 'randaug(2,15)' (big_vision's; layers from 1, magnitude 0 to 20)"
)


# Arguments of the operations, as functions of the level and of a random sign, 1 or -1.


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
  """One operation."""

  argument: Callable  # (level, sign) -> argument of `apply`; sign is 1 or -1
  apply: Callable  # (image, argument, fill) -> new image, see `image_ops`


_TIMM = {
  "AutoContrast": Op(_nothing, image_ops.autocontrast),
  "Equalize": Op(_nothing, image_ops.equalize),
  "Invert": Op(_nothing, image_ops.invert),
  "Rotate": Op(_signed(30), image_ops.cubic("rotate")),
  "SolarizeAdd": Op(_whole(110), image_ops.solarize_add),
  "ShearX": Op(_signed(0.3), image_ops.cubic("shear_x")),
  "ShearY": Op(_signed(0.3), image_ops.cubic("shear_y")),
  "TranslateXRel": Op(_signed(0.45), image_ops.cubic("shift_x")),
  "TranslateYRel": Op(_signed(0.45), image_ops.cubic("shift_y")),
}
# {kind: {name in the original code: operation}}
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
    "Rotate": Op(_signed(30), image_ops.nearest("rotate")),
    "Posterize": Op(lambda level, sign: max(1, int(level / 10 * 4)), image_ops.posterize),
    "Solarize": Op(lambda level, sign: int(level / 10 * 256) % 256, image_ops.solarize),
    "Color": Op(_factor, image_ops.color),
    "Contrast": Op(_factor, image_ops.contrast_by_size),
    "Brightness": Op(_factor, image_ops.brightness),
    "Sharpness": Op(_factor, image_ops.sharpness),
    "ShearX": Op(_signed(0.3), image_ops.nearest("shear_x")),
    "ShearY": Op(_signed(0.3), image_ops.nearest("shear_y")),
    "TranslateX": Op(_signed(100), image_ops.nearest("shift_x_pixels")),
    "TranslateY": Op(_signed(100), image_ops.nearest("shift_y_pixels")),
    "Cutout": Op(_whole(40), image_ops.cutout),
    "SolarizeAdd": Op(_whole(110), image_ops.solarize_add),
  },
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
  """Applies random operations; `parse` makes one from a recipe's notation.

  Attributes:
    kind: a key of OPS; operations are drawn uniformly, with replacement.
    layers: number of operations drawn per image.
    probability: of applying each of them.
    magnitude, spread: mean and standard deviation of the level, drawn for each applied operation.
    limit: levels are clipped to [0, limit].
    fill: color of pixels outside the image, RGB in 0 to 255.
  """

  kind: str
  layers: int
  probability: float
  magnitude: int
  spread: float
  limit: int
  fill: tuple[int, int, int]

  def draw(self, rng: np.random.Generator) -> list[tuple[str, Any]]:
    """[(name, argument)] of the operations to apply to one image."""
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
    """RGB uint8 [H, W, 3] -> same shape; returns `image` itself if no operation is applied, and never modifies it."""
    for name, argument in self.draw(rng):
      image = OPS[self.kind][name].apply(image, argument, self.fill)
    return image


def parse(spec: str, fill: tuple[int, int, int]) -> RandAugment:
  """A RandAugment from timm's or big_vision's notation.

  spec: "rand" with any of "-m9" (magnitude, 0 to 10; default 10), "-n2" (layers; 2), "-p0.5" (probability; 0.5),
    "-mstd0.5" (standard deviation of the level; 0) and "-inc1" (every operation gets stronger with the level; 0), with
    the meaning and the defaults of timm 1.0 (older versions read inc0 as inc1); or "randaug(2,15)": layers, and a
    magnitude of 0 to 20.
  fill: color of pixels outside the image, RGB in 0 to 255. timm's recipes use the dataset's mean; for big_vision's
    notation it is always gray 128.

  Raises UserError: the notation is invalid, or a value is out of range.
  """
  if match := re.fullmatch(r"randaug\((\d+),(\d+)\)", spec):
    layers, magnitude, limit = int(match[1]), int(match[2]), 20  # above 20, Posterize would need more than 8 bits
    augment = RandAugment("big_vision", layers, 1.0, magnitude, 0.0, limit, _GRAY)
  else:
    start, *settings = spec.split("-")
    matches = [re.fullmatch(r"((?:m|n|inc)(?=\d+$)|p|mstd)(\d+(?:\.\d+)?)", setting) for setting in settings]
    wrong = [setting for setting, match in zip(settings, matches, strict=True) if match is None]
    values = {match[1]: float(match[2]) for match in matches if match}
    if start != "rand" or wrong or len(values) < len(settings):
      what = f": {wrong[0]!r} is invalid" if wrong and start == "rand" else ""
      raise UserError(f"invalid RandAugment {spec!r}{what}; {_NOTATIONS}")
    kind = "timm_increasing" if values.get("inc", 0) else "timm"
    layers, magnitude, limit = int(values.get("n", 2)), int(values.get("m", 10)), 10
    augment = RandAugment(kind, layers, values.get("p", 0.5), magnitude, values.get("mstd", 0.0), limit, tuple(fill))
  if layers < 1 or magnitude > limit or augment.probability > 1 or augment.spread > 100:
    raise UserError(f"RandAugment {spec!r}: a value is out of range; {_NOTATIONS}")
  return augment
