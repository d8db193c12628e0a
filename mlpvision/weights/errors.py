"""The exception of this package."""

from collections.abc import Sequence
import os

from mlpvision.errors import UserError


class WeightsError(UserError, ValueError):
  """A weight file that cannot be used; the message has the file, the problem and a remedy."""

  def __init__(self, source: str | os.PathLike, problem: str, advice: str = "") -> None:
    super().__init__(f"{source}: {problem}" + (f"\n{advice}" if advice else ""))


def listing(items: Sequence[str], limit: int = 10) -> str:
  """Up to `limit` items, one per indented line, and the number of further items."""
  items = list(items)
  more = [f"... and {len(items) - limit} more"] if len(items) > limit else []
  return "\n".join(f"  {item}" for item in items[:limit] + more)
