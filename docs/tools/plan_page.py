"""The part of docs/performance.md that `mlpvision.plan --write` writes, between two markers."""

from collections.abc import Sequence
import datetime
import os
import pathlib

from mlpvision.errors import UserError
from mlpvision.plan import report
from mlpvision.plan.plans import Plan

BEGIN, END = "<!-- plan: begin -->", "<!-- plan: end -->"

_LEGEND = """Nothing was measured. Memory, GFLOP, GB and collectives are the compiler's figures; the GB of HBM are
counted in its HLO. Step, MFU, images/s and hours are computed from the cycles that it estimates, without
waiting for collectives, input, evaluation and checkpoints. The roofline is computed from its GFLOP, the GB of
HBM and the chip's published peaks. MFU counts the model's own matrix products, forward and backward, without
recomputation. All figures except images/s and hours are per chip."""


def write(path: str | os.PathLike, text: str) -> None:
  """Replaces the text between the markers, or creates the page.

  Raises:
    UserError: the page exists and does not have both markers once, in order.
  """
  path = pathlib.Path(path)
  page = path.read_text() if path.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
  before, found_begin, rest = page.partition(BEGIN)
  _, found_end, after = rest.partition(END)
  if not (found_begin and found_end) or BEGIN in rest or END in after:
    raise UserError(f"{path} must have the lines {BEGIN} and {END}, once each: the table goes between them")
  path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}")


def text(plans: Sequence[Plan], command: str, date: datetime.date) -> str:
  """The text between the markers, with the command and date that it is from."""
  versions = ", ".join(plans[0].final.found["versions"])
  return f"""## Plans of all recipes

Written by `{command}`, with {versions}, without a TPU, {date}.

{_LEGEND}

{report.table(plans)}"""
