"""Draws WORKDIR/curves.png from WORKDIR/metrics.jsonl: python -m mlpvision.reporting.curves WORKDIR"""

import io
import sys

from etils import epath
from matplotlib.figure import Figure

from mlpvision import workdir as workdir_lib
from mlpvision.errors import UserError
from mlpvision.reporting import lettering, metrics

# Okabe and Ito's palette, which color-blind readers can distinguish.
_BLUE, _ORANGE, _GREEN, _GRAY = "#0072B2", "#D55E00", "#009E73", "#777777"
_TITLES = {"loss": "Loss", "top1": "Top-1 accuracy (%)", "learning_rate": "Learning rate"}


def draw(workdir: epath.PathLike) -> epath.Path | None:
  """Writes curves.png; returns its path, or None if nothing has been logged yet.

  Raises UserError: metrics.jsonl cannot be read, or curves.png cannot be written.
  """
  rows = metrics.read(workdir)
  if not rows:
    return None
  figure = Figure(figsize=(13, 3.8), layout="constrained")
  panels = _panels(rows)
  for axes, (metric, series) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
    factor = 1 if metric in ("loss", "learning_rate") else 100
    for name, (label, color) in series.items():
      points = [(row["step"], row[name] * factor) for row in rows if name in row]
      if points:
        marker = "o" if not name.startswith("train/") and len(points) < 50 else ""
        axes.plot(*zip(*points, strict=True), label=label, color=color, marker=marker, markersize=3, linewidth=1.6)
    axes.set_title(_TITLES.get(metric, f"{metric} (%)"), parse_math=False)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.get_lines()) > 1:
      axes.legend(frameon=False)
  path = epath.Path(workdir) / "curves.png"
  with workdir_lib.readable_errors(path):
    workdir_lib.replace(path, [to_png(figure)])
  return path


def _panels(rows):
  """{metric: {name in the rows: (label, color)}}: loss, the first evaluator's headline metric, and learning rate."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  # Of the evaluators, the one that counts images has the task's own metrics, the headline first.
  counts = [name for name in names if name.endswith("/images")]
  evaluator = counts[0].partition("/")[0] if counts else "val"
  headline = next((name.partition("/")[2] for name in names if name.startswith(f"{evaluator}/")), "top1")
  series = {
    metric: {
      f"train/{metric}": ("train", _GRAY),
      f"{evaluator}/{metric}": ("test", _BLUE),
      f"{evaluator}/ema_{metric}": ("test, EMA", _GREEN),
    }
    for metric in ("loss", headline)
  }
  return series | {"learning_rate": {"train/learning_rate": ("", _ORANGE)}}


def to_png(figure: Figure) -> bytes:
  """The figure as the bytes of a PNG, for paths that matplotlib cannot write to, such as gs://."""
  lettering.choose_fonts(figure)
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=130)
  return buffer.getvalue()


if __name__ == "__main__":
  if len(sys.argv) != 2:
    sys.exit("usage: python -m mlpvision.reporting.curves WORKDIR")
  try:
    picture = draw(sys.argv[1])
  except UserError as error:
    sys.exit(f"error: {error}")
  if picture is None:
    sys.exit(f"error: {sys.argv[1]} has no {metrics.FILE} with metrics")
  print(picture)
