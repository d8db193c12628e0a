"""Diagrams of S2-MLPv2, CycleMLP, gMLP, ViP and PoolFormer, for `architecture`: network, block, token mixing."""

from docs.tools.diagram import FILL, column, grid, note, plain_network, sheet
from mlpvision import models


def _gmlp():
  m = models.create("gmlp_s16")
  side, channels, hidden = 224 // m.patch_size, m.hidden_dim, int(m.hidden_dim * m.mlp_ratio)
  tokens, half = side * side, hidden // 2
  figure, (whole, block, detail) = sheet("gMLP: gMLP-S/16 at 224 x 224", 7.5)
  plain_network(whole, m, f"{tokens} patches", f"{tokens} x {channels}", last="LayerNorm")
  steps = [
    ("norm", "LayerNorm", f"{tokens} x {channels}"),
    ("channels", f"Dense {channels} → {hidden}, GELU", f"{tokens} x {hidden}"),
    ("places", "spatial gating", f"{tokens} x {half}"),
    ("channels", f"Dense {half} → {channels}", f"{tokens} x {channels}"),
    "+",
  ]
  column(block, steps, f"a block: [patches, channels] {tokens} x {channels}")
  steps = [
    ("frame", f"two halves u, v of {half} channels", f"{tokens} x {half}"),
    ("norm", "v: LayerNorm", f"{tokens} x {half}"),
    ("places", f"v: Dense {tokens} → {tokens} over the patches", f"{tokens} x {half}"),
    ("frame", "u times v", f"{tokens} x {half}"),
  ]
  column(detail, steps, "the spatial gating: one matrix for all channels")
  return figure


def _s2mlpv2():
  m = models.create("s2mlpv2_small7")
  figure, (whole, block, detail) = sheet("S²-MLPv2: Small/7 at 224 x 224", 7.5)
  size, channels = _pyramid(whole, m, "LayerNorm", f"patches of {m.patch_size}", "patches of 2")
  _block(block, m, size, channels, "LayerNorm", "two spatial shifts, split attention")
  steps = [
    ("channels", f"Dense {channels} → {3 * channels}", "three parts of the channels"),
    [("places", "parts 1 and 2:\neach shifted 4 ways"), ("frame", "part 3 stays")],
    ("channels", "split attention", size),
    ("channels", f"Dense {channels} → {channels}", size),
  ]
  column(detail, steps, "the mixing")
  return figure


def _cyclemlp():
  m = models.create("cyclemlp_b1")
  figure, (whole, block, detail) = sheet("CycleMLP: CycleMLP-B1 at 224 x 224", 11.3)
  size, channels = _pyramid(whole, m, "LayerNorm", "7 x 7 convolution, stride 4", "3 x 3 convolution, stride 2")
  _block(block, m, size, channels, "LayerNorm", "Cycle FCs, Dense, split attention")
  _note_of_branches(
    detail, "every third channel one position\nleft, every third one right", _cells({(2, 1), (2, 2), (2, 3)})
  )
  _note_of_branches(detail, "the same up and down", _cells({(1, 2), (2, 2), (3, 2)}), top=-3.1)
  _note_of_branches(detail, "the position alone", _cells({(2, 2)}), top=-6.2)
  return figure


def _vip():
  m = models.create("vip_s7")
  figure, (whole, block, detail) = sheet("ViP: ViP-Small/7 at 224 x 224", 9.5)
  size, channels = _pyramid(whole, m, "LayerNorm", f"patches of {m.patch_size}", "patches of 2")
  _block(block, m, size, channels, "LayerNorm", "three products, split attention")
  group = f"{channels // m.segments} channels at a time"
  _note_of_branches(detail, f"a column's positions,\n{group}", _cells({(row, 2) for row in range(5)}))
  _note_of_branches(detail, "a row's positions, the same channels", _cells({(2, at) for at in range(5)}), top=-3.1)
  _note_of_branches(detail, f"all {channels} channels of the position", _cells({(2, 2)}), top=-6.2)
  return figure


def _poolformer():
  m = models.create("poolformer_s12")
  figure, (whole, block, detail) = sheet("PoolFormer: PoolFormer-S12 at 224 x 224", 11.3)
  size, channels = _pyramid(whole, m, "GroupNorm", "7 x 7 convolution, stride 4", "3 x 3 convolution, stride 2")
  _block(block, m, size, channels, "GroupNorm", "mean of 3 x 3 neighbors, minus itself")
  neighbors = {(row, at) for row in (1, 2, 3) for at in (1, 2, 3)}
  _note_of_branches(detail, "the pooling: equal weights,\nneighbors beyond the border do not count", _cells(neighbors))
  return figure


def _pyramid(axes, m, norm, first, further):
  """Draws a network of stages; (the first stage's size as text, its channels)."""
  steps, strides = [("frame", "image", "224 x 224 x 3")], (0, *m.feature_strides)
  for stage, (depth, channels) in enumerate(zip(m.depths, m.hidden_dim, strict=True)):
    side = 224 // m.feature_strides[stage]
    size = f"{side} x {side} x {channels}"
    if strides[stage] != strides[stage + 1]:
      steps.append(("frame" if stage else "whole", further if stage else first, size))
    steps.append(("whole", f"stage {stage + 1}: {depth} blocks", size))
  steps.append(("norm", f"{norm}; mean over positions", f"{channels}"))
  column(axes, [*steps, ("channels", f"Dense → {m.num_classes} classes", "")], "the network")
  side = 224 // m.feature_strides[0]
  return f"{side} x {side} x {m.hidden_dim[0]}", m.hidden_dim[0]


def _block(axes, m, size, channels, norm, mixing):
  hidden = int(channels * m.mlp_ratio[0])
  steps = [
    ("norm", norm, size),
    ("places", mixing, size),
    "+",
    ("norm", norm, size),
    ("channels", f"Dense {channels} → {hidden}, GELU", size.replace(f"x {channels}", f"x {hidden}")),
    ("channels", f"Dense {hidden} → {channels}", size),
    "+",
  ]
  column(axes, steps, f"a block of stage 1: {size}")


def _cells(seen):
  return lambda row, at: FILL["places"] if (row, at) in seen else "white"


def _note_of_branches(axes, text, color, top=0.0):
  note(axes, 2.75, top - 0.75, text, soft=True)
  grid(axes, 1.75, top - 0.9, (5, 5), 0.4, color)


FAMILIES = {
  "s2mlpv2": _s2mlpv2,
  "cyclemlp": _cyclemlp,
  "gmlp": _gmlp,
  "vip": _vip,
  "poolformer": _poolformer,
}
