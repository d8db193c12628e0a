"""The part of docs/performance.md that says which hosts can feed their chips, from measured loaders and the plans.

  python -m docs.tools.hosts_page docs/performance.md "2 CPU cores, AMD EPYC, 2026-11-26" RESULT.json ...

The results are of `mlpvision.benchmark data --config.data.workers=2 --json=RESULT.json`, one for each way of loading
that recipes have. The plans are the table of the same page.
"""

from collections.abc import Mapping, Sequence
import importlib
import json
import math
import pathlib
import re
import sys
from typing import Any

BEGIN, END = "<!-- hosts: begin -->", "<!-- hosts: end -->"
# Google Cloud's machine types with four chips: their vCPUs.
HOSTS = {"v5e": ("ct5lp-hightpu-4t", 112), "v5p": ("ct5p-hightpu-4t", 208)}
_CHIPS = 4
_PLAN = re.compile(r"^\| `(\w+)` \| (v5e|v5p):([\dx]+) \|(?:.*\|){8} ([\d,]+) \| [\d.]+ \| .*\|$", re.MULTILINE)


def needs(page: str) -> list[tuple[str, str, float]]:
  """(config, chip, images/s that a host's chips take by the plan) for each row of the page's plans."""
  found = []
  for name, chip, topology, rate in _PLAN.findall(page):
    chips = math.prod(map(int, topology.split("x")))
    found.append((name, chip, float(rate.replace(",", "")) * _CHIPS / chips))
  return found


def speed(result: Mapping[str, Any]) -> tuple[float, float]:
  """(images per CPU-second in the slowest round, images per CPU-second of the main process)."""
  (main,) = [stage["per_cpu_second"] for stage in result["stages"] if stage["name"] == "main process"]
  return min(turn["images"] / turn["cpu"] for turn in result["loaders"]["ours"]), main


def table(page: str, results: Sequence[Mapping[str, Any]]) -> str:
  """The table as Markdown."""
  speeds = {json.dumps(result["pipeline"]): speed(result) for result in results}
  rows = []
  for name, chip, need in needs(page):
    config = importlib.import_module(f"configs.{name}").get_config()
    if config.get("task", "classification") != "classification":  # the benchmark does not measure others
      continue
    augment = config.augment
    way = [augment.crop, list(augment.crop_scale), augment.randaugment, config.data.image_size]
    per_cpu, main = speeds[json.dumps(way)]
    cpus, host = need / per_cpu, HOSTS[chip][1]
    verdict = "yes" if cpus < 0.8 * host and need < 0.8 * main else "no"
    rows.append(
      f"| `{name}` | {chip} | {need:,.0f} | {per_cpu:,.0f} | {cpus:,.0f} of {host} | {need / main:.0%} | {verdict} |"
    )
  head = "| config | host | images/s it needs | loaded per CPU-second | vCPUs | of the main process's core | fed |"
  return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def main(argv: Sequence[str]) -> None:
  """Writes the part of the page between its markers."""
  path, machine, *files = argv
  path = pathlib.Path(path)
  page = path.read_text()
  before, rest = page.split(BEGIN)
  after = rest.split(END)[1]
  results = [json.loads(pathlib.Path(file).read_text()) for file in files]
  path.write_text(f"{before}{BEGIN}\nMeasured on {machine}.\n\n{table(page, results)}\n{END}{after}")


if __name__ == "__main__":
  main(sys.argv[1:])
