"""The one exception of this package."""

from mlpvision.errors import UserError


class WeightsError(UserError, ValueError):
  """A weight file that cannot be used: which file, what is wrong with it, and what to do."""

  def __init__(self, source, problem, advice=""):
    super().__init__(f"{source}: {problem}" + (f"\n{advice}" if advice else ""))


def listing(items, limit=10):
  """One item a line, indented, the rest counted: for messages that name many leaves."""
  items = list(items)
  lines = [f"  {item}" for item in items[:limit]]
  if len(items) > limit:
    lines.append(f"  ... and {len(items) - limit} more")
  return "\n".join(lines)
