"""The networks. `create` makes one by name; every family takes the same option names."""

import dataclasses
import difflib
from typing import Any

from flax import linen as nn

from mlpvision.models import asmlp, ff, mixer, resmlp, s2mlp, swin, vit

_FAMILIES = (
  (mixer.MlpMixer, mixer.VARIANTS),
  (s2mlp.S2MLP, s2mlp.VARIANTS),
  (asmlp.ASMLP, asmlp.VARIANTS),
  (resmlp.ResMLP, resmlp.VARIANTS),
  (ff.FF, ff.VARIANTS),
  (vit.ViT, vit.VARIANTS),
  (swin.Swin, swin.VARIANTS),
)
MODELS = {name: (module, sizes) for module, variants in _FAMILIES for name, sizes in variants.items()}


def create(name: str, **overrides: Any) -> nn.Module:
  """A linen module by the name of its variant, e.g. create("s2mlp_wide", num_classes=10, drop_path=0.1).

  Args:
    name: a key of `MODELS`.
    **overrides: attributes of the family's module that differ from the variant's.

  Raises:
    ValueError: unknown name or attribute; the message has the nearest known ones.
  """
  if name not in MODELS:
    raise ValueError(f"unknown model {name!r}{_nearest(name, MODELS)}; known: {', '.join(MODELS)}")
  module, sizes = MODELS[name]
  known = [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]
  for key in overrides:
    if key not in known:
      raise ValueError(f"{name} has no option {key!r}{_nearest(key, known)}; options: {', '.join(known)}")
  return module(**{**sizes, **overrides})


def _nearest(word, known):
  matches = difflib.get_close_matches(word, known, n=3)
  return f" (did you mean {' or '.join(matches)}?)" if matches else ""
