"""The table of model families for the tests of the contract, of sizes and of weight files.

A new family needs a row; without it, `tests/models/test_contract.py` fails.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
  """One family.

  small: {variant: attributes that make it small, with at least two blocks}; the first one represents the family.
  parameters: {variant: exact number, with a head of 1,000 classes}, from the papers' tables and the original code.
  macs: {variant: multiply-accumulates in billions}, from independent arithmetic.
  image: (height, width) for the small variants.
  goldens: {file in tests/data: (suffix of the published original, attributes that a file does not determine)}.
  """

  small: Mapping[str, Mapping[str, Any]]
  parameters: Mapping[str, int]
  macs: Mapping[str, float]
  image: tuple[int, int] = (16, 24)
  goldens: Mapping[str, tuple[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)


def _vit(width, depth):
  """Per block 12 N C^2 for the projections and the MLP, 2 N^2 C for attention; then the patches."""
  return (depth * (12 * 197 * width**2 + 2 * 197**2 * width) + 196 * 768 * width) / 1e9


def _swin(width, depths, window, size):
  """Swin's Eq. 2 per block, with the MLP: 12 hw C^2 + 2 M^2 hw C; then mergings (4C to 2C) and patches."""
  side, total = size // 4, (size // 4) ** 2 * 48 * width
  for stage, depth in enumerate(depths):
    if stage:
      side, total, width = side // 2, total + (side // 2) ** 2 * 8 * width**2, 2 * width
    total += depth * (12 * side**2 * width**2 + 2 * window**2 * side**2 * width)
  return total / 1e9


_SHORT, _LONG = (2, 2, 6, 2), (2, 2, 18, 2)
_PLAIN = dict(patch_size=8, num_blocks=2, hidden_dim=16)

# By the name of the family's file.
FAMILIES = {
  "mixer": Row(
    small={"mixer_b16": dict(**_PLAIN, tokens_mlp_dim=8, channels_mlp_dim=32)},
    parameters={
      "mixer_s32": 19_104_624,
      "mixer_s16": 18_528_264,
      "mixer_b32": 60_293_428,
      "mixer_b16": 59_880_472,
      "mixer_l32": 206_939_264,
      "mixer_l16": 208_196_168,
      "mixer_h14": 432_350_952,
    },
    macs={
      "mixer_s32": 1.00,
      "mixer_s16": 3.78,
      "mixer_b32": 3.24,
      "mixer_b16": 12.60,
      "mixer_l32": 11.25,
      "mixer_l16": 44.55,
      "mixer_h14": 120.99,
    },
    goldens={"mixer_npz": (".npz", {}), "mixer_timm": (".safetensors", {})},
  ),
  "s2mlp": Row(
    small={"s2mlp_wide": _PLAIN, "s2mlp_deep": dict(**_PLAIN, affine_init=0.1)},
    parameters={"s2mlp_wide": 72_241_384, "s2mlp_deep": 53_917_288},
    macs={"s2mlp_wide": 13.988, "s2mlp_deep": 10.462},
  ),
  "s2mlpv2": Row(
    small={"s2mlpv2_small7": dict(patch_size=4, hidden_dim=(8, 16), depths=(1, 1))},
    parameters={"s2mlpv2_small7": 25_113_448, "s2mlpv2_medium7": 55_269_864},
    macs={"s2mlpv2_small7": 6.902, "s2mlpv2_medium7": 16.284},
    goldens={"s2mlpv2": (".safetensors", {})},
  ),
  "asmlp": Row(
    small={"asmlp_tiny": dict(hidden_dim=8, depths=(1, 1))},
    parameters={
      "asmlp_tiny": 28_282_696,
      "asmlp_small": 49_594_696,
      "asmlp_base": 87_752_808,
      "asmlp_mobile": 9_597_480,
    },
    macs={"asmlp_mobile": 1.320, "asmlp_tiny": 4.350, "asmlp_small": 8.512, "asmlp_base": 15.126},
    goldens={"asmlp": (".pth", {})},
  ),
  "cyclemlp": Row(
    small={"cyclemlp_b1": dict(hidden_dim=(8, 12), depths=(1, 1), mlp_ratio=(2.0, 3.0))},
    parameters={
      "cyclemlp_b1": 15_155_400,
      "cyclemlp_b2": 26_802_504,
      "cyclemlp_b3": 38_385_720,
      "cyclemlp_b4": 51_796_552,
      "cyclemlp_b5": 75_747_280,
    },
    macs={
      "cyclemlp_b1": 2.122,
      "cyclemlp_b2": 3.876,
      "cyclemlp_b3": 6.831,
      "cyclemlp_b4": 10.027,
      "cyclemlp_b5": 12.232,
    },
    goldens={"cyclemlp": (".pth", {})},
  ),
  "vip": Row(
    small={
      "vip_s7": dict(patch_size=8, segments=2, hidden_dim=(8, 12, 12), depths=(1,) * 3, mlp_ratio=(2.0, 3.0, 2.0))
    },
    parameters={"vip_s14": 29_892_904, "vip_s7": 25_114_984, "vip_m7": 55_272_488, "vip_l7": 87_784_936},
    macs={"vip_s14": 6.856, "vip_s7": 6.902, "vip_m7": 16.284, "vip_l7": 24.340},
    image=(16, 16),
    goldens={"vip": (".pth", dict(segments=8))},
  ),
  "resmlp": Row(
    small={"resmlp_s12": _PLAIN},
    parameters={
      "resmlp_s12": 15_350_872,
      "resmlp_s24": 30_020_680,
      "resmlp_s36": 44_690_488,
      "resmlp_b24_16": 115_736_776,
      "resmlp_b24_8": 129_138_280,
    },
    macs={
      "resmlp_s12": 3.01,
      "resmlp_s24": 5.96,
      "resmlp_s36": 8.91,
      "resmlp_b24_16": 23.02,
      "resmlp_b24_8": 100.2,
    },
    goldens={"resmlp_timm": (".safetensors", {})},
  ),
  "ff": Row(
    small={"ff_base": _PLAIN},
    parameters={"ff_tiny": 7_676_332, "ff_base": 61_943_020, "ff_large": 206_213_048},
    macs={"ff_tiny": 1.44, "ff_base": 14.13, "ff_large": 10.71},
    goldens={"ff": (".pth", {})},
  ),
  "gmlp": Row(
    small={"gmlp_s16": dict(**_PLAIN, mlp_ratio=4.0)},
    parameters={"gmlp_ti16": 5_867_328, "gmlp_s16": 19_422_656, "gmlp_b16": 73_075_392},
    macs={"gmlp_ti16": 1.329, "gmlp_s16": 4.392, "gmlp_b16": 15.720},
    goldens={"gmlp_timm": (".safetensors", {})},
  ),
  "vit": Row(
    small={"vit_b16": dict(**_PLAIN, num_heads=2)},
    parameters={"vit_s16": 22_050_664, "vit_b16": 86_567_656, "vit_l16": 304_326_632},
    macs={"vit_s16": _vit(384, 12), "vit_b16": _vit(768, 12), "vit_l16": _vit(1024, 24)},
    goldens={"vit_timm": (".safetensors", dict(num_heads=4))},
  ),
  "swin": Row(
    small={"swin_tiny": dict(hidden_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=2)},
    parameters={
      "swin_tiny": 28_288_354,
      "swin_small": 49_606_258,
      "swin_base": 87_768_224,
      "swin_mobile": 9_599_940,
      "swin_tiny_384": 28_338_034,
      "swin_small_384": 49_707_778,
      "swin_base_384": 87_903_584,
    },
    macs={
      "swin_mobile": _swin(64, (2, 2, 2, 2), 7, 224),
      "swin_tiny": _swin(96, _SHORT, 7, 224),
      "swin_small": _swin(96, _LONG, 7, 224),
      "swin_base": _swin(128, _LONG, 7, 224),
      "swin_tiny_384": _swin(96, _SHORT, 12, 384),
      "swin_small_384": _swin(96, _LONG, 12, 384),
      "swin_base_384": _swin(128, _LONG, 12, 384),
    },
    goldens={"swin_timm": (".safetensors", {})},
  ),
  "poolformer": Row(
    small={"poolformer_s12": dict(hidden_dim=(8, 12), depths=(1, 1), mlp_ratio=(2.0, 3.0), layer_scale_init=0.1)},
    parameters={
      "poolformer_s12": 11_915_176,
      "poolformer_s24": 21_388_968,
      "poolformer_s36": 30_862_760,
      "poolformer_m36": 56_172_520,
      "poolformer_m48": 73_473_448,
    },
    macs={
      "poolformer_s12": 1.812,
      "poolformer_s24": 3.392,
      "poolformer_s36": 4.972,
      "poolformer_m36": 8.759,
      "poolformer_m48": 11.533,
    },
    goldens={"poolformer": (".pth", {})},
  ),
}
GOLDENS = {name: golden for row in FAMILIES.values() for name, golden in row.goldens.items()}
