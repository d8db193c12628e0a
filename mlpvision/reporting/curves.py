"""Draws WORKDIR/curves.png from WORKDIR/metrics.jsonl: python -m mlpvision.reporting.curves WORKDIR"""

import io
import sys

from etils import epath
import matplotlib
from matplotlib.figure import Figure

from mlpvision import workdir as workdir_lib
from mlpvision.errors import UserError
from mlpvision.reporting import lettering, metrics

# Okabe and Ito's palette, which color-blind readers can distinguish.
_BLUE, _ORANGE, _GREEN, _GRAY = "#0072B2", "#D55E00", "#009E73", "#777777"
_OF_PARTS = ("#56B4E9", "#E69F00", "#CC79A7", "#F0E442", "#882255")
_TITLES = {
  "loss": "Loss",
  "top1": "Top-1 accuracy (%)",
  "miou": "Mean IoU (%)",
  "aacc": "Pixel accuracy (%)",
  "box_ap": "Box AP (%)",
  "mask_ap": "Mask AP (%)",
  "learning_rate": "Learning rate",
}


def draw(workdir: epath.PathLike) -> epath.Path | None:
  """Writes curves.png; returns its path, or None if nothing has been logged yet.

  Raises UserError: metrics.jsonl cannot be read, or curves.png cannot be written.
  """
  rows = metrics.read(workdir)
  if not rows:
    return None
  panels = _panels(rows)
  figure = Figure(figsize=(13 / 3 * len(panels), 3.8), layout="constrained")
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
  """{metric: {name in the rows: (label, color)}}.

  The loss and its parts, "train/loss_decode"; the first evaluator's headline metric, of a detector those of boxes and
  masks; what else both it and training report; and the learning rate.
  """
  names = list(dict.fromkeys(name for row in rows for name in row))
  # Of the evaluators, the one that counts images has the task's own metrics, the headline first.
  counts = [name for name in names if name.endswith("/images")]
  evaluator = counts[0].partition("/")[0] if counts else "val"
  headline = next((name.partition("/")[2] for name in names if name.startswith(f"{evaluator}/")), "top1")
  headlines = [headline, "mask_ap"] if f"{evaluator}/mask_ap" in names else [headline]
  both = [name.partition("/")[2] for name in names if name.startswith("train/")]
  both = [metric for metric in both if f"{evaluator}/{metric}" in names and metric not in ("loss", *headlines)]
  series = {
    metric: {
      f"train/{metric}": ("train", _GRAY),
      f"{evaluator}/{metric}": ("test", _BLUE),
      f"{evaluator}/ema_{metric}": ("test, EMA", _GREEN),
    }
    for metric in ("loss", *headlines, *both)
  }
  parts = sorted((name for name in names if name.startswith("train/loss_")), reverse=True)
  for name, color in zip(parts, _OF_PARTS, strict=False):
    series["loss"][name] = (f"train, {name.removeprefix('train/loss_')}", color)
  return series | {"learning_rate": {"train/learning_rate": ("", _ORANGE)}}


def to_png(figure: Figure) -> bytes:
  """The figure as the bytes of a PNG, for paths that matplotlib cannot write to, such as gs://."""
  lettering.choose_fonts(figure)
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=130)
  return buffer.getvalue()


def to_svg(figure: Figure) -> bytes:
  """The figure as the bytes of an SVG, with letters as outlines: it looks the same without its fonts.

  What is drawn again has the same bytes.
  """
  lettering.choose_fonts(figure)
  buffer = io.BytesIO()
  with matplotlib.rc_context({"svg.hashsalt": "mlpvision"}):
    figure.savefig(buffer, format="svg", metadata={"Date": None})
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
