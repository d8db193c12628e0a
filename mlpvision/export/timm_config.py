"""The config.json of a model for timm and the Hugging Face Hub; `weights.timm_config` reads it."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import linen as nn

from mlpvision import models
from mlpvision.data import imagenet
from mlpvision.models import layers
from mlpvision.trained import Trained
from mlpvision.weights.noted import RUN_OPTIONS

_MLP = dict(first_conv="stem.proj", classifier="head")
_VIT = dict(first_conv="patch_embed.proj", classifier="head")
_SWIN = dict(first_conv="patch_embed.proj", classifier="head.fc")
# Our variant -> (timm's architecture, its image size, names of its first and last layers). timm's sizes are fixed.
_ARCHITECTURES: Mapping[str, tuple[str, int, Mapping[str, str]]] = {
  **{f"mixer_{size}": (f"mixer_{size}_224", 224, _MLP) for size in ("s32", "s16", "b32", "b16", "l32", "l16")},
  **{f"resmlp_s{depth}": (f"resmlp_{depth}_224", 224, _MLP) for depth in (12, 24, 36)},
  "resmlp_b24_8": ("resmlp_big_24_224", 224, _MLP),
  **{f"gmlp_{size}": (f"gmlp_{size}_224", 224, _MLP) for size in ("ti16", "s16", "b16")},
  "vit_s16": ("vit_small_patch16_224", 224, _VIT),
  "vit_b16": ("vit_base_patch16_224", 224, _VIT),
  "vit_l16": ("vit_large_patch16_224", 224, _VIT),
  "swin_tiny": ("swin_tiny_patch4_window7_224", 224, _SWIN),
  "swin_small": ("swin_small_patch4_window7_224", 224, _SWIN),
  "swin_base": ("swin_base_patch4_window7_224", 224, _SWIN),
  "swin_base_384": ("swin_base_patch4_window12_384", 384, _SWIN),
}
# Attributes that only training reads; and GELU, which timm computes exactly: the difference is small.
_FREE = (*RUN_OPTIONS, "drop_path_rescale", "head_bias_init", "layer_scale_init", "approximate_gelu")


@dataclasses.dataclass(frozen=True)
class Architecture:
  """name: in timm; arguments: for its create_model; layers: names of the first and the last one."""

  name: str
  arguments: Mapping[str, Any]
  layers: Mapping[str, str]


def architecture(model: nn.Module, image_size: int | tuple[int, int]) -> Architecture | None:
  """timm's architecture that computes what a classifier does, with the weights that we write; None if it has none."""
  for variant, (name, size, ends) in _ARCHITECTURES.items():
    if isinstance(model, models.MODELS[variant][0]) and _equal(model, models.create(variant)):
      arguments = {} if image_size == size else {"img_size": image_size}
      # Windows that do not divide a map are another matter in each project.
      return None if arguments and "swin" in variant else Architecture(name, arguments, ends)
  return None


def _equal(model, variant):
  return all(getattr(model, key) == getattr(variant, key) for key in layers.attributes(type(model)) if key not in _FREE)


def config(trained: Trained) -> dict[str, Any]:
  """The content of config.json: timm's if it has the architecture, and in its form otherwise.

  The name is then one that timm does not have: its PoolFormer, for example, computes something else.
  """
  view, model = trained.preprocessing, trained.model
  theirs = architecture(model, view.image_size)
  count = model.num_classes or 0
  size = view.image_size if isinstance(view.image_size, tuple) else (view.image_size,) * 2
  found = {
    "architecture": theirs.name if theirs else f"mlpvision_{trained.model_name}",
    "num_classes": count,
    "num_features": getattr(model, "backbone", model).feature_widths[-1],
  }
  if theirs and theirs.arguments:
    found["model_args"] = dict(theirs.arguments)
  if trained.class_names != tuple(str(i) for i in range(count)):
    found["label_names"] = list(trained.class_names)
    words = {name: text for name in trained.class_names if (text := imagenet.words(name))}
    found |= {"label_descriptions": words} if words else {}
  found["pretrained_cfg"] = {
    "custom_load": False,
    "input_size": [3, *size],
    "fixed_input_size": models.family_of(model).patches is not None,
    "interpolation": view.interpolation,
    "crop_pct": view.crop_ratio,
    "crop_mode": "center",
    "mean": list(view.mean),
    "std": list(view.std),
    "num_classes": count,
    "pool_size": None,
    **(theirs.layers if theirs else {}),
  }
  return found
