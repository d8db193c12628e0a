"""The networks. `create` makes one by name; options have the same names in every family."""

import difflib
from typing import Any

from flax import linen as nn
import jax

from mlpvision.models import (
  asmlp,
  cyclemlp,
  ff,
  gmlp,
  layers,
  mixer,
  poolformer,
  pyramid,
  resmlp,
  s2mlp,
  s2mlpv2,
  swin,
  vip,
  vit,
)
from mlpvision.models.detection import two_stage
from mlpvision.models.family import Family
from mlpvision.models.heads import upernet

FAMILIES = (
  mixer.FAMILY,
  s2mlp.FAMILY,
  s2mlpv2.FAMILY,
  asmlp.FAMILY,
  cyclemlp.FAMILY,
  vip.FAMILY,
  resmlp.FAMILY,
  ff.FAMILY,
  gmlp.FAMILY,
  vit.FAMILY,
  swin.FAMILY,
  poolformer.FAMILY,
)
MODELS = {name: (family.module, sizes) for family in FAMILIES for name, sizes in family.variants.items()}
# Models for dense tasks, which have a backbone.
HEADS = {
  "upernet": upernet.UperNet,
  "mask_rcnn": two_stage.MaskRCNN,
  "cascade_mask_rcnn": two_stage.CascadeMaskRCNN,
}


def create(name: str, **overrides: Any) -> nn.Module:
  """A linen module by the name of its variant, e.g. create("s2mlp_wide", num_classes=10, drop_path=0.1).

  Models for dense tasks take the name of a backbone, and its options with their own:
  create("upernet", backbone="asmlp_tiny", num_classes=150, channels=512, drop_path=0.3).

  If you compile its gradient with `remat` for a CPU yourself, use `compiler_options`, as the training loop does.

  Args:
    name: a key of `MODELS` or `HEADS`.
    **overrides: attributes of the family's module that differ from the variant's.

  Raises:
    ValueError: unknown name or attribute; the message suggests similar ones.
  """
  if name in HEADS:
    return _create_dense(HEADS[name], name, overrides)
  if name not in MODELS:
    known = (*MODELS, *HEADS)
    raise ValueError(f"unknown model {name!r}{_nearest(name, known)}; known: {', '.join(known)}")
  module, sizes = MODELS[name]
  known = layers.attributes(module)
  for key in overrides:
    if key not in known:
      raise ValueError(f"{name} has no option {key!r}{_nearest(key, known)}; options: {', '.join(known)}")
  return module(**{**sizes, **overrides})


def _create_dense(module, name, options):
  options = dict(options)
  base = options.pop("backbone", None)
  if base not in MODELS:
    near = _nearest(str(base), MODELS)
    raise ValueError(f"{name} needs a backbone, {base!r} is none{near}; known: {', '.join(MODELS)}")
  own = [key for key in layers.attributes(module) if key != "backbone"]
  shared = {key: options[key] for key in ("dtype",) if key in options}
  rest = {key: value for key, value in options.items() if key not in own}
  known = layers.attributes(MODELS[base][0])
  for key in rest:
    if key not in known or key == "num_classes":
      both = (*own, *known)
      raise ValueError(f"{name} with {base} has no option {key!r}{_nearest(key, both)}; options: {', '.join(both)}")
  built = backbone(base, **rest, **shared)
  return module(backbone=built, **{key: value for key, value in options.items() if key in own})


def backbone(name: str, **overrides: Any) -> nn.Module:
  """`create` for dense prediction: no head, the family's `dense` attributes, and maps for a `pyramid.Pyramid`.

  Raises:
    ValueError: as of `create`, or no pyramid can be made from the model's maps.
  """
  module = create(name, **{"num_classes": None, **overrides})
  pyramid.check(module.feature_strides)
  dense = family_of(module).dense
  return module.clone(**{key: value for key, value in dense.items() if key not in overrides})


def family_of(module: nn.Module) -> Family:
  """The record of a module's family, or of its backbone's; ValueError if it is not in `FAMILIES`."""
  module = getattr(module, "backbone", module)
  for family in FAMILIES:
    if isinstance(module, family.module):
      return family
  raise ValueError(f"{type(module).__name__} is not in mlpvision.models.FAMILIES")


def compiler_options(platform: str | None = None) -> dict[str, str]:
  """Options for a gradient of these models: jax.jit(f, compiler_options=models.compiler_options()).

  Without them, XLA on CPU drops the barriers that `remat` needs to save memory, and those between blocks
  (`remat.stored_gradient`). The results are the same; AS-MLP's backward pass is about a twentieth slower. A forward
  pass does not need them.

  Args:
    platform: "cpu", "gpu" or "tpu"; by default, the platform that JAX runs on.
  """
  return {"xla_disable_hlo_passes": "cse_barrier_expander"} if (platform or jax.default_backend()) == "cpu" else {}


def _nearest(word, known):
  matches = difflib.get_close_matches(word, known, n=3)
  return f" (did you mean {' or '.join(matches)}?)" if matches else ""
