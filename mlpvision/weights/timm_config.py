"""timm's config.json, which folders of the Hugging Face Hub have beside their weights.

It names the architecture and what the weights expect of an image (`pretrained_cfg`). Nothing in it is believed: it is
as foreign as the weights.
"""

import dataclasses
import json
import os
from typing import Any

from mlpvision.preprocessing import Preprocessing
from mlpvision.weights import noted
from mlpvision.weights.errors import WeightsError, shortened

FILE = "config.json"
_MAX_BYTES = 20 << 20  # with the names and descriptions of 21,843 classes, it has less than 4 MB
# Tags of timm's weights end in the dataset of the head; a tag stays when a model is given another head.
_IMAGENET, _CLASSES_OF_IMAGENET = ("in1k", "in21k", "in22k"), (1000, 21841, 21843)


@dataclasses.dataclass(frozen=True)
class Config:
  """What a config.json says of the weights beside it.

  Attributes:
    path: of the file.
    num_classes: of the head; None if unknown, 0 for none.
    class_names: of the head, in order, or None.
    on_imagenet: whether the head was trained on ImageNet, by the weights' tag.
    view: its fields of the preprocessing: input_size, mean, std, crop_pct, interpolation, crop_mode.
  """

  path: str
  num_classes: int | None
  class_names: tuple[str, ...] | None
  on_imagenet: bool
  view: dict[str, Any]

  def preprocessing(self) -> Preprocessing | None:
    """None if the file has no mean. Raises WeightsError if no image can be prepared as it says."""
    view = self.view
    if view.get("mean") is None:
      return None
    advice = "Choose another one with preprocessing=NAME (--preprocessing=NAME)."
    try:
      if view.get("crop_mode", "center") != "center":
        raise ValueError(f"crop_mode={shortened(view['crop_mode'], 60)}: must be center")
      channels, *size = view.get("input_size", (3, 224, 224))
      if channels != 3:
        raise ValueError(f"input_size={shortened(view['input_size'], 60)}: must be of images with 3 channels")
      side = size[0] if len(set(size)) == 1 else tuple(size)
      options = {"crop_ratio": view.get("crop_pct"), "interpolation": view.get("interpolation")}
      options = {name: value for name, value in options.items() if value is not None}
      return Preprocessing(_channels(view["mean"]), _channels(view["std"]), image_size=side, **options)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
      problem = f"its preprocessing is not possible ({shortened(error)})"
      raise WeightsError(self.path, problem, advice) from error


def _channels(value):
  """Of one number for all channels, three."""
  return tuple(value) * (3 if len(value) == 1 else 1)


def beside(path: str | os.PathLike) -> Config | None:
  """The `Config` in the folder of a weight file; None if there is none, or if it is of another program.

  Raises WeightsError if it is damaged.
  """
  path = os.path.join(os.path.dirname(os.fspath(path)), FILE)
  if not os.path.isfile(path):
    return None
  try:
    if os.path.getsize(path) > _MAX_BYTES:
      raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
    with open(path, encoding="utf-8") as file:
      found = json.load(file)
    return _config(path, found) if type(found) is dict and "architecture" in found else None
  except (OSError, ValueError, TypeError, RecursionError) as error:
    raise WeightsError(path, f"is no config.json of timm ({shortened(error)})", "Repair or remove it.") from error


def _config(path, found):
  view = found.get("pretrained_cfg", found)  # in one level before timm 0.9
  if type(view) is not dict:
    raise ValueError("its pretrained_cfg is not a JSON object")
  count = found.get("num_classes", view.get("num_classes"))
  if count is not None and type(count) is not int:
    raise ValueError(f"num_classes={shortened(count, 60)}")
  names = found.get("label_names", view.get("label_names", found.get("labels")))
  if type(names) is dict:  # {"0": name, ...}; with gaps, they are no names of all outputs
    names = [names[str(i)] for i in range(len(names))] if set(names) == {str(i) for i in range(len(names))} else None
  names = noted.check_printable(noted.class_names(names))
  count = len(names) if count is None and names else count
  if names is not None and len(names) != count:
    raise ValueError(f"it has {len(names)} label_names for {count} classes")
  tag = view.get("tag")
  on_imagenet = type(tag) is str and tag.endswith(_IMAGENET) and count in _CLASSES_OF_IMAGENET
  keys = ("input_size", "mean", "std", "crop_pct", "interpolation", "crop_mode")
  return Config(path, count, names, on_imagenet, {key: view[key] for key in keys if view.get(key) is not None})
