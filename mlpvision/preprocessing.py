"""The preprocessing that weights expect; it is stored with runs and weight files."""

import dataclasses
import numbers
from typing import Any

import ml_collections

_MAX_IMAGE_SIZE = 4096
_MAX_SCALE = 16384
_CANVAS_STEP = 32  # sides of a detector's canvas are multiples of the last map's stride
# {field: (smallest, largest)}; mean and std are of pixels in [0, 1], and (value * 255 - 0) / 1 has a std of 1 / 255.
_RANGES = {"mean": (0, 1), "std": (1e-4, 10), "crop_ratio": (0.1, 1)}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How evaluation prepares an image. ValueError for values with which no image can be prepared.

  The shorter side is resized to image_size / crop_ratio, the central square of image_size is cropped, and values in
  [0, 1] are normalized by mean and std (red, green, blue).

  With `scale`, of segmenters and detectors, the whole image is resized to fit this (longer, shorter) side instead,
  bilinear and not antialiased; image_size is then that of a segmenter's training crops.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  crop_ratio: float = 0.875
  interpolation: str = "bicubic"
  image_size: int | tuple[int, int] = 224
  scale: tuple[int, int] | None = None

  def __post_init__(self) -> None:
    for name, (low, high) in _RANGES.items():
      value = getattr(self, name)
      if name != "crop_ratio" and not (isinstance(value, tuple | list) and len(value) == 3):
        raise ValueError(f"{name}={_text(value)}: must be three numbers")
      if not all(_is_between(x, low, high) for x in (value if name != "crop_ratio" else [value])):
        raise ValueError(f"{name}={_text(value)}: must be in [{low}, {high}]")
    if self.interpolation not in ("bicubic", "bilinear"):
      raise ValueError(f"interpolation={_text(self.interpolation)}: must be bicubic or bilinear")
    sides = self.image_size if isinstance(self.image_size, tuple | list) else (self.image_size,) * 2
    if len(sides) != 2 or not all(
      isinstance(n, numbers.Integral) and _is_between(n, 1, _MAX_IMAGE_SIZE) for n in sides
    ):
      raise ValueError(f"image_size={_text(self.image_size)}: must be in pixels, from 1 to {_MAX_IMAGE_SIZE}")
    sides = self.scale if isinstance(self.scale, tuple | list) else (self.scale,)
    if self.scale is not None and not (len(sides) == 2 and all(_is_between(n, 1, _MAX_SCALE) for n in sides)):
      raise ValueError(f"scale={_text(self.scale)}: must be two numbers of pixels, from 1 to {_MAX_SCALE}")

  def __str__(self) -> str:
    mean, std = (f"({', '.join(f'{x:g}' for x in channels)})" for channels in (self.mean, self.std))
    if self.scale:
      return f"to fit {self.scale[0]} x {self.scale[1]} pixels, mean {mean}, std {std}"
    return f"{self.image_size} pixels, crop ratio {self.crop_ratio:g}, {self.interpolation}, mean {mean}, std {std}"


def _is_between(value: Any, low, high):
  return isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= value <= high


def _text(value):
  text = repr(value)
  return text if len(text) < 60 else f"{text[:57]}..."


def of_config(config: ml_collections.ConfigDict) -> Preprocessing:
  """The preprocessing of a run's evaluation, from config.data and config.eval. ValueError if no image can be."""
  data, view = config.data, config.eval
  scale = tuple(data.scale) if config.get("task") in ("segmentation", "detection") else None
  return Preprocessing(tuple(data.mean), tuple(data.std), view.crop_ratio, view.interpolation, data.image_size, scale)


def canvas(scale: tuple[int, int]) -> tuple[int, int]:
  """(shorter, longer) side of the smallest canvas for images that are resized to fit `scale`: config.data.canvas.

  ValueError if it would be larger than a config's can be.
  """
  shorter, longer = (-(-int(side) // _CANVAS_STEP) * _CANVAS_STEP for side in sorted(scale))
  if longer > _MAX_IMAGE_SIZE:
    raise ValueError(f"scale={_text(scale)}: a detector's images have up to {_MAX_IMAGE_SIZE} pixels a side")
  return shorter, longer


def check_canvas(sides: Any, scale: tuple[int, int]) -> None:
  """Raises ValueError if config.data.canvas is none, or has no room for images that are resized to fit `scale`."""
  are_sides = isinstance(sides, tuple | list) and all(type(n) is int and n % _CANVAS_STEP == 0 for n in sides)
  if not (are_sides and len(sides) == 2 and max(sides) <= _MAX_IMAGE_SIZE):
    raise ValueError(f"data.canvas={_text(sides)}: must be 2 multiples of {_CANVAS_STEP}, up to {_MAX_IMAGE_SIZE}")
  if any(side < needed for side, needed in zip(sorted(sides), canvas(scale), strict=True)):
    raise ValueError(f"data.canvas={_text(sides)}: has no room for data.scale={_text(scale)}")


def write_to(config: ml_collections.ConfigDict, preprocessing: Preprocessing) -> None:
  """Sets the config fields that `of_config` reads."""
  config.data.update(mean=preprocessing.mean, std=preprocessing.std, image_size=preprocessing.image_size)
  config.eval.update(crop_ratio=preprocessing.crop_ratio, interpolation=preprocessing.interpolation)
  if preprocessing.scale:
    config.data.scale = preprocessing.scale
