"""The part of a Markdown page that a command writes, between two markers; the rest of the page is people's."""

import os
import pathlib

from mlpvision.errors import UserError

BEGIN, END = "<!-- plan: begin -->", "<!-- plan: end -->"


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
