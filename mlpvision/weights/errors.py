"""The exception of this package."""

from collections.abc import Sequence
import os
from typing import Any

from mlpvision.errors import UserError


class WeightsError(UserError, ValueError):
  """A weight file that cannot be used; the message has the file, the problem and a remedy.

  Text of the file may be in the message: long lines are cut, and what is not printable is escaped.
  """

  def __init__(self, source: str | os.PathLike, problem: str, advice: str = "") -> None:
    lines = f"{problem}\n{advice}".rstrip("\n").split("\n")
    super().__init__(f"{source}: " + "\n".join(shortened(line, 1000) for line in lines))


def listing(items: Sequence[str], limit: int = 10) -> str:
  """Up to `limit` items, one per indented line, and the number of further items."""
  items = list(items)
  more = [f"... and {len(items) - limit} more"] if len(items) > limit else []
  return "\n".join(f"  {shortened(item)}" for item in items[:limit] + more)


def shortened(value: Any, limit: int = 200) -> str:
  """The text of a value from a file, for a message: in one line, printable, and of limited length."""
  text = str(value)
  text = text if len(text) <= limit else f"{text[: limit - 3]}..."
  return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
