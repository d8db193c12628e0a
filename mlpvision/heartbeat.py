"""Progress of this process, which the watchdog of a run observes: steps, and batches of an evaluation."""

count, what = 0, "the start"


def beat(of: str) -> None:
  """Reports progress. `of` names it in messages, such as "step 12"."""
  global count, what
  count, what = count + 1, of
