"""The tables of the data benchmark, as text and as JSON."""

from collections.abc import Sequence
import dataclasses
import json
import statistics

from mlpvision.benchmark import usage
from mlpvision.benchmark.rounds import Contestant
from mlpvision.benchmark.stages import Stage


def stages(found: Sequence[Stage]) -> str:
  """A table of stages.Stage."""
  lines = [f"{'stage, alone in one thread':30}{'images/s':>12}{'per CPU-second':>16}{'CPU ms/image':>14}"]
  lines += [
    f"{stage.name:30}{stage.per_second:12,.0f}{stage.per_cpu_second:16,.0f}{1e3 / stage.per_cpu_second:14.3f}"
    for stage in found
  ]
  return "\n".join(lines)


def contestants(found: Sequence[Contestant]) -> str:
  """A table of rounds.Contestant, the first one being ours."""
  median = {c.name: statistics.median(r.per_cpu_second for r in c.rounds) for c in found}
  title = f"whole loader, {len(found[0].rounds)} rounds"
  lines = [
    f"{title:30}{'images/s':>12}{'per CPU-second: median':>24}{'min':>8}{'max':>8}{'ours/it':>9}"
    f"{'peak memory':>13}{'last round':>12}"
  ]
  for contestant in found:
    rates = [r.per_cpu_second for r in contestant.rounds]
    memory = [r.memory for r in contestant.rounds]
    known = None not in memory
    lines.append(
      f"{contestant.name:30}{statistics.median(r.per_second for r in contestant.rounds):12,.0f}"
      f"{median[contestant.name]:24,.0f}{min(rates):8,.0f}{max(rates):8,.0f}"
      f"{median[found[0].name] / median[contestant.name]:9.2f}"
      f"{_megabytes(max(memory)) if known else '?':>13}{_megabytes(memory[-1]) if known else '?':>12}"
    )
  lines.append(
    "All processes of a loader count. Every loader here flips on the host, so that all do the same work; in training,"
    "\nthe device flips."
  )
  if not usage.COMPLETE:
    lines.append("Without /proc, worker processes that still run do not count, and memory is not known.")
  return "\n".join(lines)


def to_json(title: str, found_stages: Sequence[Stage], found_contestants: Sequence[Contestant]) -> str:
  """Everything that the tables say, and each round."""
  whole = {
    "title": title,
    "stages": [dataclasses.asdict(stage) for stage in found_stages],
    "loaders": {c.name: [dataclasses.asdict(r) for r in c.rounds] for c in found_contestants},
  }
  return json.dumps(whole, indent=2) + "\n"


def _megabytes(size):
  return f"{size / 1e6:,.0f} MB"
