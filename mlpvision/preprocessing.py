"""The preprocessing that weights expect; it is stored with runs and weight files."""

import dataclasses

import ml_collections


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How evaluation prepares an image.

  The shorter side is resized to image_size / crop_ratio, the central square of image_size is cropped, and values in
  [0, 1] are normalized by mean and std (red, green, blue).
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  crop_ratio: float = 0.875
  interpolation: str = "bicubic"
  image_size: int | tuple[int, int] = 224

  def __str__(self) -> str:
    mean, std = (f"({', '.join(f'{x:g}' for x in channels)})" for channels in (self.mean, self.std))
    return f"{self.image_size} pixels, crop ratio {self.crop_ratio:g}, {self.interpolation}, mean {mean}, std {std}"


def of_config(config: ml_collections.ConfigDict) -> Preprocessing:
  """The preprocessing of a run's evaluation, from config.data and config.eval."""
  data, view = config.data, config.eval
  return Preprocessing(tuple(data.mean), tuple(data.std), view.crop_ratio, view.interpolation, data.image_size)


def write_to(config: ml_collections.ConfigDict, preprocessing: Preprocessing) -> None:
  """Sets the config fields that `of_config` reads."""
  config.data.update(mean=preprocessing.mean, std=preprocessing.std, image_size=preprocessing.image_size)
  config.eval.update(crop_ratio=preprocessing.crop_ratio, interpolation=preprocessing.interpolation)
