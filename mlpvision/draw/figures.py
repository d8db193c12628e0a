"""Figures of `maps` and shifts, in a color map that color-blind readers can distinguish."""

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

from mlpvision.draw import maps
from mlpvision.models import shift
from mlpvision.reporting import lettering


def receptive_fields(fields: Mapping[str, np.ndarray]) -> Figure:
  """One panel per {label: field [H, W]}, on one logarithmic scale, with the squares that contain 50 % and 95 %."""
  figure, panels = _grid(len(fields), side=2.6)
  largest = max(field.max() for field in fields.values())
  for axes, (label, field) in zip(panels, fields.items(), strict=True):
    shown = axes.imshow(np.log10(field / largest + 1e-5), cmap="cividis", vmin=-4, vmax=0)
    sides = [maps.radius(field, share) for share in (0.5, 0.95)]
    for side, style in zip(sides, ("-", "--"), strict=True):
      y, x = field.shape[0] // 2, field.shape[1] // 2
      corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * side / 2
      axes.plot(x + corners[:, 0], y + corners[:, 1], style, color="white", linewidth=1.2)
    axes.set(xlim=(-0.5, field.shape[1] - 0.5), ylim=(field.shape[0] - 0.5, -0.5))
    axes.set_title(f"{lettering.plain(label)}\n50 % in {sides[0]} px, 95 % in {sides[1]} px", fontsize=9)
  figure.colorbar(shown, ax=panels, shrink=0.7, label="gradient / largest gradient, log10")
  return figure


def shifts(picture: np.ndarray, directions: str) -> Figure:
  """The image in each channel group after 0 to 3 of S²-MLP's shifts.

  picture: float [H, W, 3] in [0, 1], small, e.g. 14 x 14; directions: see `shift.spatial_shift`.
  """
  offsets = shift.resolve_directions(directions)
  features = np.tile(picture, (1, 1, len(offsets)))[None]
  figure, panels = _grid(len(offsets) * 4, columns=4, side=1.9)
  for step in range(4):
    groups = np.split(np.asarray(features[0]), len(offsets), axis=-1)
    for i, (group, offset) in enumerate(zip(groups, offsets, strict=True)):
      axes = panels[4 * i + step]
      axes.imshow(group, interpolation="nearest")
      axes.set_title(f"{step} x {offset}" if step else f"channel group {i + 1}", fontsize=9)
    features = shift.spatial_shift(features, directions)
  figure.suptitle(f"spatial shift, directions {directions!r} as (dy, dx)")
  return figure


def features(picture: np.ndarray, colors: Sequence[np.ndarray], strides: Sequence[int]) -> Figure:
  """An image next to its feature maps, as `maps.feature_colors` returns them."""
  figure, panels = _grid(len(colors) + 1, columns=len(colors) + 1, side=2.6)
  panels[0].imshow(picture)
  panels[0].set_title("image", fontsize=9)
  for i, (axes, color, stride) in enumerate(zip(panels[1:], colors, strides, strict=True)):
    axes.imshow(color, interpolation="nearest")
    axes.set_title(f"stage {i + 1}: {color.shape[0]} x {color.shape[1]}, stride {stride}", fontsize=9)
  figure.suptitle("feature maps, first three principal components as colors", fontsize=10)
  return figure


def saliency(picture: np.ndarray, heat: np.ndarray, title: str) -> Figure:
  """An image, its saliency, and both overlaid."""
  figure, panels = _grid(3, columns=3, side=3.0)
  heat = np.clip(heat / np.percentile(heat, 99), 0, 1)
  for axes, shown, name in zip(
    panels, (picture, heat, None), (lettering.plain(title), "input gradient", "both"), strict=True
  ):
    axes.imshow(picture if shown is None else shown, **({} if shown is picture else dict(cmap="cividis")))
    if shown is None:
      axes.imshow(heat, cmap="cividis", alpha=0.65)
    axes.set_title(name, fontsize=9)
  return figure


def _grid(count, *, side, columns=None):
  # A number that leaves no cell empty, if there is one.
  columns = columns or next((n for n in (4, 3, 5, 7) if count > n and count % n == 0), min(count, 7))
  lines = -(-count // columns)
  figure = Figure(figsize=(side * columns + 0.8, (side + 0.35) * lines + 0.3), layout="constrained")
  FigureCanvasAgg(figure)
  panels = figure.subplots(lines, columns, squeeze=False).ravel()
  for axes in panels[count:]:
    axes.set_visible(False)
  if count > 1:
    for axes in panels:
      axes.set(xticks=[], yticks=[])
  return figure, panels[:count]
