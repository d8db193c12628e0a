"""The parts of the diagrams of models: columns of boxes, arrows, grids of positions."""

import functools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
import numpy as np

# Light tints of Okabe and Ito's colors, which color-blind readers can distinguish; every box also has a label.
FILL = {"places": "#F6CF8A", "channels": "#A9D8F2", "norm": "#E4E4E4", "frame": "#FFFFFF", "whole": "#BFE3D6"}
_GAP, _HEIGHT, _INK, _SOFT = 0.34, 0.62, "#222222", "#666666"


def plain_network(axes, m, patches, size, first=None, last=None):
  """The column of a plain stack of blocks."""
  steps = [("frame", "image", "224 x 224 x 3"), ("whole", f"{patches} of {m.patch_size} x {m.patch_size}, Dense", size)]
  steps += [("norm", first, size)] if first else []
  steps += [("whole", f"{m.num_blocks} blocks", size)]
  steps += [("norm", last, size)] if last else []
  steps += [("frame", "mean over patches", f"{m.hidden_dim}"), ("channels", f"Dense → {m.num_classes} classes", "")]
  column(axes, steps, "the network")


def sheet(title, depth):
  """(figure, three panels) with a height for `depth` units of a column."""
  figure = Figure(figsize=(13, 0.72 * depth + 0.4), layout="constrained")
  FigureCanvasAgg(figure)
  panels = figure.subplots(1, 3)
  for axes in panels:
    axes.set(xlim=(-0.3, 5.8), ylim=(-depth, 0.3), aspect="equal")
    axes.axis("off")
  figure.suptitle(title, fontsize=13)
  return figure, panels


def column(axes, steps, title):
  """Boxes from top to bottom, with the shape of each one's output; "+" adds the input of the branch."""
  axes.text(2.75, 0.0, title, ha="center", fontsize=10, color=_INK)
  top, entry = -0.55, -0.3
  draw = functools.partial(arrow, axes)
  if "+" in steps:
    draw((2.75, -0.15), (2.75, top))
  for i, step in enumerate(steps):
    bottom = top - _HEIGHT
    if step == "+":
      middle = top - 0.2
      axes.text(2.75, middle, "+", ha="center", va="center", fontsize=12, color=_INK,
                bbox=dict(boxstyle="circle,pad=0.12", facecolor="white", edgecolor=_INK, linewidth=1))  # fmt: skip
      axes.plot([2.75, 0.05, 0.05], [entry, entry, middle], color=_INK, linewidth=1)
      draw((0.05, middle), (2.53, middle))
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
        draw((x, bottom), (x, top))


def _box(axes, x, y, width, height, text, kind):
  style = dict(boxstyle="round,pad=0,rounding_size=0.1", facecolor=FILL[kind], edgecolor=_INK, linewidth=1)
  axes.add_patch(FancyBboxPatch((x, y), width, height, **style))
  axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8.5, color=_INK)


def arrow(axes, start, end):
  """An arrow between two points."""
  style = dict(arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, color=_INK, linewidth=1)
  axes.add_patch(FancyArrowPatch(start, end, **style))


def grid(axes, x, y, shape, side, color, labels=None):
  """Cells of a map, color(row, column), with labels."""
  for row, column in np.ndindex(*shape):
    corner = (x + column * side, y - (row + 1) * side)
    axes.add_patch(Rectangle(corner, side, side, facecolor=color(row, column), edgecolor=_SOFT, linewidth=0.8))
    if labels is not None:
      note(axes, corner[0] + side / 2, corner[1] + side / 2, labels[row, column], va="center")


def note(axes, x, y, text, *, soft=False, va="bottom", **more):
  """A line of text."""
  size, color = (8, _SOFT) if soft else (9, _INK)
  axes.text(x, y, text, ha="center", va=va, fontsize=size, color=color, **more)
