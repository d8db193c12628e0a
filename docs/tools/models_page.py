"""docs/models.md as a whole, and the figure of the papers' accuracies against the sizes counted here."""

from collections.abc import Mapping

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlpvision import models
from mlpvision.models import cost, published

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"

_HEADER = """# Models

Written by `python -m mlpvision.cost --write=docs/models.md`; all sizes, here and in the drawings, are taken from the
models themselves.

## Blocks

A Mixer's block mixes places by an MLP across all patches. S²-MLP has no such weights: a shift moves each quarter of the
channels by one patch, and the Dense that follows mixes what has come together. AS-MLP shifts along rows and columns, by
up to two places either way, in four stages of falling resolution. Dense is a linear layer over channels, the same at
every place; drop path stands at the end of each branch, before +.

![Mixer-B/16, its block, token and channel mixing](images/mixer.png)

![S²-MLP-wide, its block, the spatial shift](images/s2mlp.png)

![AS-MLP-T, its block, the axial shift](images/asmlp.png)

*Drawn by `python -m mlpvision.draw architecture s2mlp --output=docs/images/s2mlp.png`, and so on.*

The command draws other pictures too: what a shift does to a picture, what a trained model sees in it, and which of its
pixels matter for the class:

    python -m mlpvision.draw shifts photo.png --output=shifts.png
    python -m mlpvision.draw features --weights=runs/quickstart photo.png --output=features.png
    python -m mlpvision.draw saliency --weights=runs/quickstart photo.png --output=saliency.png
    python -m mlpvision.draw published --output=published.png

## Sizes

Parameters are with a head of 1,000 classes, multiply-accumulates (MACs; what the papers call FLOPs) of one image, and
beside them what the papers print. The accuracies are the papers' for ImageNet-1K: none has been reproduced here yet.

| model | image | parameters | MACs | paper: parameters (M) | paper: FLOPs (G) | paper: top-1 (%) | source | note |
|---|---|---|---|---|---|---|---|---|
"""


def count() -> dict[tuple[str, int], dict[str, int]]:
  """{(name, image_size): {"parameters": int, "macs": int}} of every row of `published.ROWS`."""
  return {(row.name, row.image_size): cost.count(models.create(row.name), row.image_size) for row in published.ROWS}


def text(counts: Mapping[tuple[str, int], Mapping[str, int]]) -> str:
  """The page; counts as from `count`."""
  lines = []
  for row in published.ROWS:
    found = counts[row.name, row.image_size]
    printed = " | ".join(text or "–" for text in (row.parameters, row.macs, row.top1, row.source))
    counted = f"{found['parameters']:,} | {found['macs'] / 1e9:.3f} G"
    lines.append(f"| `{row.name}` | {row.image_size} | {counted} | {printed} | {row.note} |\n")
  return _HEADER + "".join(lines)


def draw(counts: Mapping[tuple[str, int], Mapping[str, int]]) -> Figure:
  """The papers' top-1 against the counts of parameters and multiply-accumulates; counts as from `count`."""
  figure = Figure(figsize=(11, 4.6), layout="constrained")
  FigureCanvasAgg(figure)
  families = sorted({row.name.split("_")[0] for row in published.ROWS if row.top1})
  kinds = (("parameters", 1e6, "parameters (M)"), ("macs", 1e9, "multiply-accumulates (G)"))
  for axes, (key, unit, label) in zip(figure.subplots(1, 2, sharey=True), kinds, strict=True):
    for family, colour, marker in zip(families, _COLOURS, _MARKERS, strict=False):
      rows = [
        row for row in published.ROWS if row.top1 and row.name.split("_")[0] == family and "Pre-trained" not in row.note
      ]
      points = [(counts[row.name, row.image_size][key] / unit, float(row.top1)) for row in rows]
      if points:
        axes.plot(*zip(*sorted(points), strict=True), marker + ":", color=colour, label=family, linewidth=1)
    axes.set(xscale="log", xlabel=label)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
  figure.axes[0].set_ylabel("ImageNet-1K top-1 (%), as published")
  figure.axes[0].legend(frameon=False)
  figure.suptitle("published, without further images; none reproduced here yet", fontsize=10)
  return figure
