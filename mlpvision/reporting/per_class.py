"""The AP of each class of a detector: as text, as a table and as a picture.

`scores` are {class's name: (box AP, mask AP)} in [0, 1]; NaN for a class without objects. The mask AP is missing, in
all of them, if the model has no masks: (box AP,).
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from matplotlib.figure import Figure

from mlpvision.errors import printable
from mlpvision.reporting import lettering, palette

_KINDS = ("box", "mask")
_LARGE = 60  # classes, at most, whose names are in large letters


def text(scores: Mapping[str, Sequence[float]]) -> str:
  """A line for each class, the best first, and one for their mean; in percent, "-" for a class without objects."""
  rows = [(printable(name), values) for name, values in _sorted(scores)] + [("mean", _means(scores))]
  width = max(len("class"), *(len(name) for name, _ in rows))
  lines = [f"{'class':{width}}" + "".join(f"  {kind + ' AP':>7}" for kind in _KINDS[: len(rows[0][1])])]
  for name, values in rows:
    lines.append(f"{name:{width}}" + "".join(f"  {'-' if math.isnan(x) else f'{x:.2%}':>7}" for x in values))
  return "\n".join(lines)


def table(scores: Mapping[str, Sequence[float]]) -> list[list[Any]]:
  """Rows of class, box_ap and mask_ap in [0, 1], in the order of the classes; "" for a class without objects."""
  rows = [["class", *(f"{kind}_ap" for kind in _KINDS[: len(_means(scores))])]]
  for name, values in scores.items():
    rows.append([name, *("" if math.isnan(x) else float(x) for x in values)])
  return rows


def picture(scores: Mapping[str, Sequence[float]], title: str) -> Figure:
  """A bar for each class and kind, the best class on top; classes without objects are left out."""
  shown = [(name, values) for name, values in _sorted(scores) if not math.isnan(values[0])]
  means, step = _means(scores), 0.22 if len(shown) <= _LARGE else 0.12
  figure = Figure(figsize=(6.5, 1.3 + step * max(len(shown), 3)), layout="constrained")
  axes = figure.subplots()
  thick = 0.8 / len(means)
  for i, mean in enumerate(means):
    places = [row + (i - (len(means) - 1) / 2) * thick for row in range(len(shown))]
    values = [100 * values[i] for _, values in shown]
    color = palette.colors()[(4, 0)[i]] / 255
    axes.barh(places, values, thick, color=color, label=f"{_KINDS[i]} AP, mean {mean:.1%}".replace("nan%", "-"))
  names = [lettering.plain(name[:32]) for name, _ in shown]
  axes.set_yticks(range(len(shown)), names, fontsize=8 if step > 0.2 else 5)
  axes.set(xlim=(0, 100), ylim=(max(len(shown), 1) - 0.5, -0.5), xlabel="AP (%)")
  axes.grid(axis="x", alpha=0.25)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(means), borderaxespad=0.2)
  figure.suptitle(lettering.plain(title), fontsize=10)
  return figure


def _sorted(scores):
  """[(name, values), ...], by the box AP from the largest; those without objects last."""
  return sorted(scores.items(), key=lambda item: math.inf if math.isnan(item[1][0]) else -item[1][0])


def _means(scores):
  """The mean of each kind over the classes that have objects, NaN if none has."""
  kinds = zip(*scores.values(), strict=True)
  known = [[float(x) for x in values if not math.isnan(x)] for values in kinds]
  return [sum(values) / len(values) if values else math.nan for values in known]
