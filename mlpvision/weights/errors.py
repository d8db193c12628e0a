"""The one exception of this package."""

from collections.abc import Sequence
import os

from mlpvision.errors import UserError


class WeightsError(UserError, ValueError):
  """A weight file that cannot be used: which file, what is wrong with it, and what to do."""

  def __init__(self, source: str | os.PathLike, problem: str, advice: str = "") -> None:
    super().__init__(f"{source}: {problem}" + (f"\n{advice}" if advice else ""))


def listing(items: Sequence[str], limit: int = 10) -> str:
  """One item a line, indented, the rest counted: for messages that name many leaves."""
  items = list(items)
  lines = [f"  {item}" for item in items[:limit]]
  if len(items) > limit:
    lines.append(f"  ... and {len(items) - limit} more")
  return "\n".join(lines)
