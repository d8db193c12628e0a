"""The settings of each study, for the papers' configs and for small models that train on a laptop.

A row's `change` contains fields of config.model for the paper's setting; `laptop` those for the laptop, if they differ
(a model of 8 blocks cannot have 12). Numbers are top-1 in percent, as printed in the papers.
"""

import dataclasses
from typing import Any

import ml_collections

from docs.tools import published


@dataclasses.dataclass(frozen=True)
class Row:
  """One setting: its label, fields of config.model, and the paper's top-1 (None: the paper has no such row)."""

  label: str
  change: dict
  paper: float | None
  laptop: dict | None = None
  group: str = ""

  def model(self, on_laptop: bool) -> dict[str, Any]:
    """The fields of config.model that this row sets."""
    return self.change if self.laptop is None or not on_laptop else self.laptop


@dataclasses.dataclass(frozen=True)
class Study:
  """A table of a paper.

  Attributes:
    title, source: for the report; the source includes the paper's dataset, and is empty without a paper.
    config: name in configs/, the paper's setting.
    laptop: fields of config.model for the laptop, on the quickstart's 28x28 digits.
    rows: the settings.
    order: groups of equivalent rows, from best to worst in the paper.
    caveat: what the laptop's figure must not be taken for; part of its title.
    budget: "parameters" or "macs", of which all rows get as many as the base model; see `budget.fit`.
  """

  title: str
  source: str
  config: str
  laptop: dict
  rows: tuple[Row, ...]
  order: tuple[str, ...] = ()
  caveat: str = ""
  budget: str = ""


_S2_SMALL = dict(name="s2mlp_wide", num_blocks=6, hidden_dim=64, patch_size=4)
_AS_SMALL = dict(name="asmlp_tiny", hidden_dim=32, depths=(2, 2), patch_size=2)
_S2_PAPER = "arXiv 2106.07477, {}: ImageNet-100"
_AS_PAPER = "arXiv 2107.08391 v1, {}: ImageNet-1K"


def _directions():
  paper = {
    "four": ("four", 87.1), "eight": ("eight", 87.0), "up_right": ("two orthogonal", 85.0),
    "left_down": ("two orthogonal", 85.1), "up_down": ("two opposite", 79.5), "left_right": ("two opposite", 80.5),
    "up": ("one", 77.7), "down": ("one", 77.5), "left": ("one", 78.3), "right": ("one", 78.4), "none": ("none", 56.7),
  }  # fmt: skip
  return tuple(
    Row(name.replace("_", ", "), dict(directions=name), top1, group=group) for name, (group, top1) in paper.items()
  )


def _shift(size, top1, **more):
  return Row(f"{size} x {size}", dict(shift_size=size, **more), top1)


def _family(name, **laptop):
  top1 = next(row.top1 for row in published.ROWS if row.name == name)
  return Row(name, dict(name=name), float(top1) if top1 else None, dict(name=name, **laptop))


STUDIES = {
  "s2mlp_directions": Study(
    "S²-MLP: directions of the spatial shift",
    _S2_PAPER.format("Table 7"),
    "s2mlp_wide",
    _S2_SMALL,
    _directions(),
    ("four", "two orthogonal", "two opposite", "one", "none"),
  ),
  "s2mlp_depth": Study(
    "S²-MLP: number of blocks",
    _S2_PAPER.format("Table 4"),
    "s2mlp_wide",
    _S2_SMALL,
    tuple(Row(f"{n} blocks", dict(num_blocks=n), top1, dict(num_blocks=small)) for n, small, top1 in
          ((1, 1, 56.7), (3, 2, 79.6), (6, 4, 84.6), (12, 8, 87.1), (16, 12, 86.3))),
  ),
  "s2mlp_width": Study(
    "S²-MLP: hidden dimension",
    _S2_PAPER.format("Table 5"),
    "s2mlp_wide",
    _S2_SMALL,
    tuple(Row(f"{c} channels", dict(hidden_dim=c), top1, dict(hidden_dim=c // 12)) for c, top1 in
          ((192, 79.7), (384, 85.3), (576, 85.7), (768, 87.1), (960, 87.0))),
  ),
  "s2mlp_ratio": Study(
    "S²-MLP: expansion ratio of the channel MLPs",
    _S2_PAPER.format("Table 6"),
    "s2mlp_wide",
    _S2_SMALL,
    tuple(Row(f"ratio {r}", dict(mlp_ratio=float(r)), top1) for r, top1 in
          ((1, 86.1), (2, 86.4), (3, 87.0), (4, 87.1), (5, 86.6))),
  ),
  "s2mlp_patch": Study(
    "S²-MLP: patch size",
    _S2_PAPER.format("Table 9"),
    "s2mlp_wide",
    _S2_SMALL,
    (Row("32 pixels", dict(patch_size=32), 81.0, dict(patch_size=7)),
     Row("16 pixels", dict(patch_size=16), 87.1, dict(patch_size=4))),
  ),
  "s2mlp_shape": Study(
    "S²-MLP: depth against width, at equal multiply-accumulates",
    "",
    "s2mlp_wide",
    _S2_SMALL,
    tuple(Row(f"{n} blocks", dict(num_blocks=n), None) for n in (2, 4, 6, 8, 11, 16, 24)),
    budget="macs",
  ),
  "asmlp_shift_size": Study(
    "AS-MLP: size of the axial shift",
    _AS_PAPER.format("Table 3"),
    "asmlp_tiny",
    _AS_SMALL,
    (_shift(1, 74.17), _shift(3, 81.26), _shift(5, 81.34), _shift(7, 81.32), _shift(9, 81.16)),
  ),
  "asmlp_padding": Study(
    "AS-MLP: padding of the axial shift",
    _AS_PAPER.format("Table 3, shift size 3"),
    "asmlp_tiny",
    _AS_SMALL,
    tuple(Row(kind, dict(shift_size=3, padding=kind), top1) for kind, top1 in
          (("circular", 81.04), ("zero", 81.26), ("reflect", 81.14), ("replicate", 81.14))),
  ),
  "asmlp_dilation": Study(
    "AS-MLP: dilation",
    _AS_PAPER.format("Table 3"),
    "asmlp_tiny",
    _AS_SMALL,
    tuple(Row(f"{size} x {size}, dilation {d}", dict(shift_size=size, dilation=d), top1) for size, d, top1 in
          ((3, 1, 81.26), (3, 2, 80.50), (5, 1, 81.34), (5, 2, 80.57))),
  ),
  "asmlp_connection": Study(
    "AS-MLP: the two shifts in parallel or one after the other",
    _AS_PAPER.format("Table 4"),
    "asmlp_tiny",
    _AS_SMALL,
    tuple(Row(f"{kind}, {size} x {size}", dict(connection=kind, shift_size=size), top1) for kind, size, top1 in
          (("serial", 1, 74.32), ("parallel", 1, 74.17), ("serial", 3, 81.21), ("parallel", 3, 81.26),
           ("serial", 5, 81.28), ("parallel", 5, 81.34), ("serial", 7, 81.17), ("parallel", 7, 81.32))),
  ),
  "families": Study(
    "The families, at about the same number of parameters",
    "each model's own, on ImageNet-1K",
    "s2mlp_wide",
    dict(),
    (_family("mixer_b16", num_blocks=6, hidden_dim=64, patch_size=4, tokens_mlp_dim=32, channels_mlp_dim=256),
     _family("s2mlp_wide", num_blocks=6, hidden_dim=64, patch_size=4),
     _family("s2mlpv2_small7", hidden_dim=(32, 64), depths=(3, 4), mlp_ratio=(3.0, 3.0), patch_size=2),
     _family("asmlp_tiny", hidden_dim=40, depths=(2, 2), patch_size=2),
     _family("cyclemlp_b1", hidden_dim=(40, 64), depths=(2, 3), mlp_ratio=(4.0, 4.0), patch_size=2),
     _family("vip_s7", hidden_dim=(42, 84), depths=(2, 2), mlp_ratio=(3.0, 3.0), patch_size=2, segments=14),
     _family("ff_base", num_blocks=6, hidden_dim=64, patch_size=4),
     _family("resmlp_s12", num_blocks=7, hidden_dim=64, patch_size=4),
     _family("gmlp_s16", num_blocks=6, hidden_dim=64, patch_size=4),
     _family("vit_b16", num_blocks=5, hidden_dim=64, patch_size=4, num_heads=4),
     _family("swin_tiny", hidden_dim=40, depths=(2, 2), patch_size=2, num_heads=(2, 4), window_size=7),
     _family("poolformer_s12", hidden_dim=(48, 96), depths=(2, 2), mlp_ratio=(4.0, 4.0), patch_size=2)),
    caveat="how fast each learns: 400 steps on digits are no ranking",
  ),
}  # fmt: skip


def quickstart(config: ml_collections.ConfigDict) -> None:
  """Makes the quickstart's config a laptop's: fewer epochs, one evaluation, at the end."""
  config.duration = "8 epochs"
  config.optim.schedule.warmup = "1 epoch"
  config.eval.every = config.duration
  config.checkpoint.every = "2 minutes"
  config.checkpoint.keep = 1
