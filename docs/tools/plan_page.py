"""The part of docs/performance.md that `mlpvision.plan` writes, between two markers; people write the rest."""

from collections.abc import Sequence
import datetime
import os
import pathlib

from mlpvision.errors import UserError
from mlpvision.plan import report
from mlpvision.plan.plans import Plan

BEGIN, END = "<!-- plan: begin -->", "<!-- plan: end -->"

_LEGEND = """Nothing was measured. Memory, GFLOP, GB and collectives are the compiler's; the GB of HBM are counted
in its HLO. Step, MFU, images/s and hours are arithmetic on the cycles that it estimates, in which waiting for
collectives, input, evaluation and checkpoints is not counted. The roofline is arithmetic on its GFLOP, the GB of HBM
and the chip's published peaks. MFU counts the model's own matrix products, forward and backward, and no recomputation.
All but images/s and hours is per chip."""


def write(path: str | os.PathLike, text: str) -> None:
  """Replaces what is between the markers; a page that is not there is made.

  Raises:
    UserError: the page is there without the markers, each once and in order.
  """
  path = pathlib.Path(path)
  page = path.read_text() if path.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
  before, found_begin, rest = page.partition(BEGIN)
  _, found_end, after = rest.partition(END)
  if not (found_begin and found_end) or BEGIN in rest or END in after:
    raise UserError(f"{path} must have the lines {BEGIN} and {END}, once each: the table goes between them")
  path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}")


def text(plans: Sequence[Plan], command: str, date: datetime.date) -> str:
  """What goes between the markers; command and date say where it is from."""
  versions = ", ".join(plans[0].final.found["versions"])
  return f"""## Plan: the TPU compiler's word on every recipe

Written by `{command}`, with {versions}, on no TPU, {date}.

{_LEGEND}

{report.table(plans)}"""
