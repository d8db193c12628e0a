"""The confusion matrix as a picture, in a color map that color-blind readers can distinguish."""

from collections.abc import Sequence
import textwrap

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

from mlpvision.reporting import lettering


def figure(counts: np.ndarray, names: Sequence[str], title: str, *, pixels: bool = False) -> Figure:
  """The confusion matrix int [K, K] (row: true class), as shares of each row.

  With up to 20 classes, the cells have numbers: counts of images, or of pixels, which are many, shares in percent.
  """
  names, title = [lettering.plain(name) for name in names], lettering.plain(title)
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  side = 7.5 if len(names) > 20 else 2.5 + 0.4 * len(names)
  # An inch fits about twelve letters; a dataset's name may be a long path.
  letters = max(map(len, names)) / 12 if len(names) <= 40 else 0
  title = textwrap.fill(title, int(11 * side))
  drawn = Figure(figsize=(side + letters + 1.4, side + letters + 0.9 + 0.2 * title.count("\n")), layout="constrained")
  FigureCanvasAgg(drawn)
  axes = drawn.subplots()
  shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
  if len(names) <= 40:
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
  if len(names) <= 20:
    for i, j in zip(*np.nonzero(shares >= 0.005 if pixels else counts), strict=True):
      text, color = f"{shares[i, j]:.0%}" if pixels else counts[i, j], "black" if shares[i, j] > 0.5 else "white"
      axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
  axes.set(xlabel="predicted", ylabel="true")
  axes.set_title(title, fontsize=10)
  drawn.colorbar(shown, ax=axes, shrink=0.8, label="share of the true class")
  return drawn
