"""Draws WORKDIR/curves.png from WORKDIR/metrics.jsonl. On request: python -m mlpvision.reporting.curves WORKDIR"""

import io
import sys

from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlpvision.reporting import metrics

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
_SERIES = {"train/{}": ("train", _GREY), "val/{}": ("test", _BLUE), "val/ema_{}": ("test, EMA", _GREEN)}
_PANELS = (  # title, factor, {metric: (label, colour)}
  ("Loss", 1, {name.format("loss"): style for name, style in _SERIES.items()}),
  ("Top-1 accuracy (%)", 100, {name.format("top1"): style for name, style in _SERIES.items()}),
  ("Learning rate", 1, {"train/learning_rate": ("", _ORANGE)}),
)


def draw(workdir: epath.PathLike) -> epath.Path | None:
  """Writes the picture; returns its path, or None where nothing was logged yet."""
  rows = metrics.read(workdir)
  if not rows:
    return None
  figure = Figure(figsize=(13, 3.8), layout="constrained")
  FigureCanvasAgg(figure)
  for axes, (title, factor, series) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
    for name, (label, colour) in series.items():
      points = [(row["step"], row[name] * factor) for row in rows if name in row]
      if points:
        marker = "o" if name.startswith("val/") and len(points) < 50 else ""
        axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker, markersize=3, linewidth=1.6)
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.get_lines()) > 1:
      axes.legend(frameon=False)
  path = epath.Path(workdir) / "curves.png"
  path.write_bytes(to_png(figure))
  return path


def to_png(figure: Figure) -> bytes:
  """A matplotlib figure as the bytes of a PNG, for paths that matplotlib cannot write to, such as gs://."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=130)
  return buffer.getvalue()


if __name__ == "__main__":
  if len(sys.argv) != 2:
    sys.exit("usage: python -m mlpvision.reporting.curves WORKDIR")
  picture = draw(sys.argv[1])
  if picture is None:
    sys.exit(f"error: {sys.argv[1]} has no {metrics.FILE} with metrics")
  print(picture)
