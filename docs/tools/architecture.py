"""Diagrams of three families: the network, its block, and its token mixing. Sizes are taken from the models."""

import functools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
import numpy as np

from mlpvision import models
from mlpvision.models import shift

# Light tints of Okabe and Ito's colors, which color-blind readers can distinguish; every box also has a label.
_FILL = {"places": "#F6CF8A", "channels": "#A9D8F2", "norm": "#E4E4E4", "frame": "#FFFFFF", "whole": "#BFE3D6"}
_GAP, _HEIGHT, _INK, _SOFT = 0.34, 0.62, "#222222", "#666666"


def draw(family: str) -> Figure:
  """A matplotlib figure of a family in FAMILIES: Mixer-B/16, S2-MLP-wide or AS-MLP-T, at 224 pixels."""
  return FAMILIES[family]()


def _mixer():
  m = models.create("mixer_b16")
  side = 224 // m.patch_size
  tokens, channels = side * side, m.hidden_dim
  flat, turned = f"{tokens} x {channels}", f"{channels} x {tokens}"
  figure, (whole, block, detail) = _sheet("MLP-Mixer: Mixer-B/16 at 224 x 224", 9.9)
  _plain_network(whole, m, f"{tokens} patches", flat, last="LayerNorm")
  _column(
    block,
    [
      ("norm", "LayerNorm", flat),
      ("frame", "transpose", turned),
      ("places", f"Dense {tokens} → {m.tokens_mlp_dim}, GELU", f"{channels} x {m.tokens_mlp_dim}"),
      ("places", f"Dense {m.tokens_mlp_dim} → {tokens}", turned),
      ("frame", "transpose", flat),
      "+",
      ("norm", "LayerNorm", flat),
      ("channels", f"Dense {channels} → {m.channels_mlp_dim}, GELU", f"{tokens} x {m.channels_mlp_dim}"),
      ("channels", f"Dense {m.channels_mlp_dim} → {channels}", flat),
      "+",
    ],
    f"a block: [patches, channels] {flat}",
  )
  kinds = (
    ("places", "token mixing: every channel,\nacross all patches", lambda row, column: column == 2),
    ("channels", "channel mixing: every patch,\nacross all channels", lambda row, column: row == 2),
  )
  for (place, text, is_seen), y in zip(kinds, (-1.2, -5.8), strict=True):
    _note(detail, 2.58, y + 0.2, text)
    _grid(detail, 0.9, y, (6, 8), 0.42, lambda r, c, seen=is_seen, fill=_FILL[place]: fill if seen(r, c) else "white")
    _note(detail, 2.58, y - 2.95, f"{channels} channels", soft=True)
    _note(detail, 0.62, y - 1.26, f"{tokens} patches", soft=True, rotation=90, va="center")
  return figure


def _s2mlp():
  m = models.create("s2mlp_wide")
  side, channels, hidden = 224 // m.patch_size, m.hidden_dim, int(m.hidden_dim * m.mlp_ratio)
  offsets = shift.resolve_directions(m.directions)
  size = f"{side} x {side} x {channels}"
  figure, (whole, block, detail) = _sheet("S²-MLP: S²-MLP-wide at 224 x 224", 9.0)
  _plain_network(whole, m, f"{side} x {side} patches", size, first="LayerNorm")
  _column(
    block,
    [
      ("channels", f"Dense {channels} → {channels}, GELU", size),
      ("places", f"spatial shift, {len(offsets)} groups of {channels // len(offsets)}", size),
      ("channels", f"Dense {channels} → {channels}", size),
      ("norm", "LayerNorm", size),
      "+",
      ("channels", f"Dense {channels} → {hidden}, GELU", f"{side} x {side} x {hidden}"),
      ("channels", f"Dense {hidden} → {channels}", size),
      ("norm", "LayerNorm", size),
      "+",
    ],
    f"a block: [rows, columns, channels] {size}",
  )
  # Where the value in the middle goes, by the shift itself.
  start = np.zeros((1, 5, 5, len(offsets)))
  start[0, 2, 2] = 1
  moved = np.asarray(shift.spatial_shift(start, m.directions, "zero"))[0]
  _note(detail, 2.75, -0.35, "the shift: where the middle's value goes")
  for group, offset in enumerate(offsets):
    x, y = 0.45 + 2.6 * (group % 2), -1.6 - 3.4 * (group // 2)
    first = group * channels // len(offsets)
    text = f"channels {first} to {first + channels // len(offsets) - 1}\n(dy, dx) = {offset}"
    _note(detail, x + 1.0, y + 0.12, text, soft=True)
    _grid(detail, x, y, (5, 5), 0.4, lambda r, c, there=moved[..., group]: _FILL["places"] if there[r, c] else "white")
    _arrow(detail, (x + 1.0, y - 1.0), (x + 1.0 + 0.4 * offset[1], y - 1.0 - 0.4 * offset[0]))
  _note(detail, 2.75, -8.0, "a border position that nothing reaches\nkeeps its own value", soft=True)
  return figure


def _asmlp():
  m = models.create("asmlp_tiny")
  side, channels, hidden = 224 // m.patch_size, m.hidden_dim, int(m.hidden_dim * m.mlp_ratio)
  size = f"{side} x {side} x {channels}"
  figure, (whole, block, detail) = _sheet("AS-MLP: AS-MLP-T at 224 x 224", 11.3)
  steps = [("frame", "image", "224 x 224 x 3"), ("whole", f"patches of {m.patch_size}, Dense; GroupNorm", size)]
  for stage, depth in enumerate(m.depths):
    wide = f"{side >> stage} x {side >> stage} x {channels << stage}"
    if stage:
      steps.append(("frame", "merge 2 x 2: GroupNorm, Dense", wide))
    steps.append(("whole", f"stage {stage + 1}: {depth} blocks", wide))
  steps.append(("norm", "GroupNorm; mean over positions", f"{channels << stage}"))
  _column(whole, [*steps, ("channels", f"Dense → {m.num_classes} classes", "")], "the network")
  _column(
    block,
    [
      ("norm", "GroupNorm", size),
      ("channels", f"Dense {channels} → {channels}; GroupNorm, GELU", size),
      [("places", f"axial shift {m.shift_size}\nhorizontal"), ("places", f"axial shift {m.shift_size}\nvertical")],
      [("channels", f"Dense {channels}\nGELU"), ("channels", f"Dense {channels}\nGELU")],
      ("norm", "sum; GroupNorm", size),
      ("channels", f"Dense {channels} → {channels}", size),
      "+",
      ("norm", "GroupNorm", size),
      ("channels", f"Dense {channels} → {hidden}, GELU", f"{side} x {side} x {hidden}"),
      ("channels", f"Dense {hidden} → {channels}", size),
      "+",
    ],
    f"a block of stage 1: {size}",
  )
  # Which column each channel group's values come from, by the shift itself; 0 is padding.
  count, width = m.shift_size, 7
  numbers = np.tile(np.arange(1.0, width + 1)[None, None, :, None], (1, 1, 1, count))
  middle = width // 2
  found = np.asarray(shift.axial_shift(numbers, count, 2, m.padding, m.dilation))[0, 0].T.astype(int)
  _note(detail, 2.75, -0.75, "the horizontal shift: which column\na value comes from")
  _note(detail, 0.75, -1.5, "channels", soft=True)
  _note(detail, 3.1, -1.5, f"columns 1 to {width} of a row", soft=True)
  group = -(-channels // count)
  for row in range(count):
    last = min((row + 1) * group, channels) - 1
    _note(detail, 0.75, -1.85 - 0.5 * row, f"{row * group} to {last}", soft=True, va="center")
  seen = found[:, middle] - 1
  fill = {(row, column): "#DDDDDD" for row, column in np.argwhere(found == 0)}
  fill |= {(row, middle): _FILL["places"] for row in range(count)}
  _grid(detail, 1.35, -1.6, found.shape, 0.5, lambda r, c: fill.get((r, c), "white"), found)
  _note(detail, 2.75, -4.95, "0 is padding; the vertical shift\ndoes the same with rows", soft=True)
  _note(detail, 2.75, -6.2, "what the middle sees after one block")
  cross = {(middle, at) for at in seen} | {(at, middle) for at in seen}
  _grid(detail, 1.35, -6.4, (width, width), 0.4, lambda r, c: _FILL["places"] if (r, c) in cross else "white")
  return figure


def _plain_network(axes, m, patches, size, first=None, last=None):
  steps = [("frame", "image", "224 x 224 x 3"), ("whole", f"{patches} of {m.patch_size} x {m.patch_size}, Dense", size)]
  steps += [("norm", first, size)] if first else []
  steps += [("whole", f"{m.num_blocks} blocks", size)]
  steps += [("norm", last, size)] if last else []
  steps += [("frame", "mean over patches", f"{m.hidden_dim}"), ("channels", f"Dense → {m.num_classes} classes", "")]
  _column(axes, steps, "the network")


def _sheet(title, depth):
  figure = Figure(figsize=(13, 0.72 * depth + 0.4), layout="constrained")
  FigureCanvasAgg(figure)
  panels = figure.subplots(1, 3)
  for axes in panels:
    axes.set(xlim=(-0.3, 5.8), ylim=(-depth, 0.3), aspect="equal")
    axes.axis("off")
  figure.suptitle(title, fontsize=13)
  return figure, panels


def _column(axes, steps, title):
  """Boxes from top to bottom, with the shape of each one's output; "+" adds the input of the branch."""
  axes.text(2.75, 0.0, title, ha="center", fontsize=10, color=_INK)
  top, entry = -0.55, -0.3
  arrow = functools.partial(_arrow, axes)
  if "+" in steps:
    arrow((2.75, -0.15), (2.75, top))
  for i, step in enumerate(steps):
    bottom = top - _HEIGHT
    if step == "+":
      middle = top - 0.2
      axes.text(2.75, middle, "+", ha="center", va="center", fontsize=12, color=_INK,
                bbox=dict(boxstyle="circle,pad=0.12", facecolor="white", edgecolor=_INK, linewidth=1))  # fmt: skip
      axes.plot([2.75, 0.05, 0.05], [entry, entry, middle], color=_INK, linewidth=1)
      arrow((0.05, middle), (2.53, middle))
      bottom, entry = top - 0.4, top - 0.52
    elif isinstance(step, list):
      for x, (kind, text) in zip((0.45, 2.85), step, strict=True):
        _box(axes, x, bottom - 0.2, 2.2, _HEIGHT + 0.2, text, kind)
      bottom -= 0.2
    else:
      _box(axes, 0.45, bottom, 4.6, _HEIGHT, step[1], step[0])
      forks = i + 1 < len(steps) and isinstance(steps[i + 1], list)
      place = dict(x=2.75, ha="center") if forks else dict(x=2.87)
      axes.text(y=bottom - _GAP / 2, s=step[2], va="center", fontsize=7.5, color=_SOFT, **place)
    top = bottom - _GAP
    if i + 1 < len(steps) or step == "+":
      forks = isinstance(step, list) or (i + 1 < len(steps) and isinstance(steps[i + 1], list))
      for x in (1.55, 3.95) if forks else (2.75,):
        arrow((x, bottom), (x, top))


def _box(axes, x, y, width, height, text, kind):
  style = dict(boxstyle="round,pad=0,rounding_size=0.1", facecolor=_FILL[kind], edgecolor=_INK, linewidth=1)
  axes.add_patch(FancyBboxPatch((x, y), width, height, **style))
  axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8.5, color=_INK)


def _arrow(axes, start, end):
  style = dict(arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, color=_INK, linewidth=1)
  axes.add_patch(FancyArrowPatch(start, end, **style))


def _grid(axes, x, y, shape, side, color, labels=None):
  for row, column in np.ndindex(*shape):
    corner = (x + column * side, y - (row + 1) * side)
    axes.add_patch(Rectangle(corner, side, side, facecolor=color(row, column), edgecolor=_SOFT, linewidth=0.8))
    if labels is not None:
      _note(axes, corner[0] + side / 2, corner[1] + side / 2, labels[row, column], va="center")


def _note(axes, x, y, text, *, soft=False, va="bottom", **more):
  size, color = (8, _SOFT) if soft else (9, _INK)
  axes.text(x, y, text, ha="center", va=va, fontsize=size, color=color, **more)


FAMILIES = {"mixer": _mixer, "s2mlp": _s2mlp, "asmlp": _asmlp}
