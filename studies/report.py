"""A study's table, figure and JSON file."""

from collections.abc import Mapping, Sequence
import itertools
import json
import os
import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

from mlpvision.reporting.curves import to_png
from studies.grids import Study

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito's palette


def write(
  name: str,
  study: Study,
  results: Mapping[str, Sequence[float]],
  folder: str | os.PathLike,
  *,
  images: str,
  made_by: str,
  caveat: str = "",
  counts: Mapping[str, Mapping[str, int]] | None = None,
) -> pathlib.Path:
  """Writes FOLDER/NAME.{md,png,json}.

  Args:
    name, study: an item of `grids.STUDIES`.
    results: as `runs.run` returns them.
    folder: a local directory; created if missing.
    images: description of the dataset.
    made_by: the command, hardware and date.
    caveat: what the figure must not be taken for.
    counts: the models' parameters and multiply-accumulates, of `budget.fit`.

  Returns:
    The path of the .md file.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  facts = dict(study=name, images=images, made_by=made_by, paper={row.label: row.paper for row in study.rows})
  if counts:
    facts["counts"] = counts
  (folder / f"{name}.json").write_text(json.dumps({**facts, "top1": results}, indent=1) + "\n")
  (folder / f"{name}.png").write_bytes(to_png(_draw(study, results, images, caveat)))
  path = folder / f"{name}.md"
  path.write_text(markdown(name, study, results, images=images, made_by=made_by, counts=counts))
  return path


def markdown(
  name: str,
  study: Study,
  results: Mapping[str, Sequence[float]],
  *,
  images: str,
  made_by: str,
  counts: Mapping[str, Mapping[str, int]] | None = None,
) -> str:
  """The page: table, order and figure; see `write`."""
  seeds = len(next(iter(results.values())))
  lines = [
    f"# {study.title}",
    "",
    f"Top-1 in percent on {images}, mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}.",
  ]
  if study.source:
    lines += [f"The paper: {study.source}. Images and model sizes differ: compare only the order."]
  columns = {"measured here": lambda row: _spread(results[row.label])}
  if counts:
    columns["parameters"] = lambda row: f"{counts[row.label]['parameters']:,}"
    columns["multiply-accumulates"] = lambda row: f"{counts[row.label]['macs']:,}"
  if study.source:
    columns["paper"] = lambda row: _printed(row.paper)
  lines += ["", made_by, "", f"| setting | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
  for row in study.rows:
    lines.append(f"| {row.label} | {' | '.join(text(row) for text in columns.values())} |")
  if study.order:
    lines += ["", "| equivalent settings, pooled | measured here | paper |", "|---|---|---|"]
    for group in study.order:
      rows = [row for row in study.rows if row.group == group]
      printed = [row.paper for row in rows if row.paper is not None]
      lines.append(f"| {group} | {_spread(_pooled(rows, results))} | {np.mean(printed):.1f} |")
  if study.source:
    lines += ["", "## The order", "", *order(study, results)]
  lines += ["", f"![{study.title}]({name}.png)", ""]
  return "\n".join(lines)


def order(study: Study, results: Mapping[str, Sequence[float]]) -> list[str]:
  """Sentences that compare the measured order with the paper's.

  Two settings count as different if their means differ by more than twice the standard error of the difference.
  """
  means = {}
  if study.order:
    for group in study.order:
      rows = [row for row in study.rows if row.group == group]
      means[group] = (_pooled(rows, results), np.mean([row.paper for row in rows]))
  else:
    means = {row.label: (results[row.label], row.paper) for row in study.rows if row.paper is not None}
  same, other, open_ = [], [], []
  for (a, (ours_a, paper_a)), (b, (ours_b, paper_b)) in itertools.combinations(means.items(), 2):
    if paper_a == paper_b:
      continue
    better, worse = (a, b) if paper_a > paper_b else (b, a)
    difference = (np.mean(ours_a) - np.mean(ours_b)) * np.sign(paper_a - paper_b)
    error = np.sqrt(sum(np.var(x, ddof=1) / len(x) for x in (ours_a, ours_b))) if len(ours_a) > 1 else np.inf
    pair = f"{better} over {worse} ({difference:+.1f} here, {abs(paper_a - paper_b):+.1f} in the paper)"
    (open_ if abs(difference) <= 2 * error else same if difference > 0 else other).append(pair)
  total = len(same) + len(other) + len(open_)
  lines = [f"Of {total} pairs, {len(same)} are ordered as in the paper, {len(other)} are reversed, and"]
  lines.append(f"{len(open_)} are too close to call with these seeds (means within two standard errors).")
  for title, pairs in (("As in the paper", same), ("Reversed", other), ("Too close", open_)):
    if pairs:
      lines += ["", f"{title}:", "", *(f"- {pair}" for pair in pairs)]
  return lines


def _pooled(rows, results):
  return [top1 for row in rows for top1 in results[row.label]]


def _spread(values):
  return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def _printed(value):
  return "–" if value is None else f"{value:g}"


def _draw(study, results, images, caveat):
  rows = study.rows[::-1]
  figure = Figure(figsize=(10, 1.4 + 0.36 * len(rows)), layout="constrained")
  FigureCanvasAgg(figure)
  panels = figure.subplots(1, 2 if study.source else 1, sharey=True, squeeze=False)[0]
  ours, paper = panels[0], panels[-1]
  places = np.arange(len(rows))
  for place, row in zip(places, rows, strict=True):
    values = results[row.label]
    ours.plot(values, [place] * len(values), "o", color=_BLUE, alpha=0.35, markersize=4)
    ours.errorbar(
      np.mean(values), place, xerr=np.std(values, ddof=1) if len(values) > 1 else None, fmt="D", color=_BLUE, capsize=3
    )
    if row.paper is not None:
      paper.plot(row.paper, place, "s", color=_ORANGE)
  ours.set_title(f"here: {images}", fontsize=10)
  if study.source:
    paper.set_title(f"the paper: {study.source}", fontsize=10)
  ours.set_yticks(places, [row.label for row in rows])
  for axes in panels:
    axes.set_xlabel("top-1 (%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
  figure.suptitle(f"{study.title}\n{caveat}".strip())
  return figure
