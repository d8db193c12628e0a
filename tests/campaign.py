"""Interrupts real runs in every way a machine knows and checks that nothing is lost.

  python tests/campaign.py --faults=200 --write=docs/reliability.md

Runs are small (S2-MLP on the digits) and real: whole processes, real signals, real disks. Each run is interrupted
several times and then left to finish. Its final parameters and their average must equal those of a run that nobody
disturbed, bit for bit, and so must every row of its metrics. `campaign_files.py` does the same to files.
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import fuzzing
from interruptions import INTERVAL, KINDS, REPO, STEPS, Fault, Run, interrupt
import numpy as np

_ONE_AT_A_TIME = threading.Lock()


def final_state(workdir, steps):
  """Every array of the last checkpoint, by name, and the rows of the metrics without rates."""
  sys.path.insert(0, str(REPO))
  from mlpvision import checkpoints

  arrays = {}
  for ema in (False, True):
    variables, _, step = checkpoints.load_variables(workdir, ema=ema)
    assert step == steps
    arrays |= {f"{ema}{path}": np.asarray(x) for path, x in _leaves(variables["params"])}
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return arrays, [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def _leaves(tree, prefix=""):
  for key, value in tree.items():
    yield from _leaves(value, f"{prefix}/{key}") if isinstance(value, dict) else [(f"{prefix}/{key}", value)]


def campaign(folder, schedule, seed, jobs=1, steps=STEPS, say=print):
  """Interrupts as often as the schedule has KINDS; returns the Faults. AssertionError where anything differs.

  jobs: runs that are interrupted at the same time. steps: of each run.
  """
  for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) == signal.SIG_IGN:  # as in a background job, whose commands would inherit it
      signal.signal(number, signal.SIG_DFL)
  groups, reference = _group(schedule, random.Random(seed)), {}
  for count in sorted({count for count, _, _ in groups}):
    run = Run(folder / f"undisturbed-{count}", count, steps=steps)
    run.start()
    assert run.end() == [0] * count, run.output()[-3000:]
    reference[count] = final_state(run.workdir, steps)

  def one(number, count, workers, kinds):
    run = Run(folder / f"run-{number}", count, workers, steps)
    run.workdir.mkdir()
    with _small_disk(run.workdir) if kinds[0] == "disk full" else contextlib.nullcontext(True) as mounted:
      if not mounted:
        say("no disk of its own can be mounted here: no fault of the kind 'disk full'")
        kinds = kinds[1:]
      faults = _disturb(run, kinds, random.Random(f"{seed} {number}"), say)
      with _ONE_AT_A_TIME:
        _same(reference[count], final_state(run.workdir, steps), kinds.count("damaged metrics"))
    shutil.rmtree(run.workdir, ignore_errors=True)
    return faults

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    pending = [pool.submit(one, number, *group) for number, group in enumerate(groups)]
    try:
      return [fault for faults in concurrent.futures.as_completed(pending) for fault in faults.result()]
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def _disturb(run, kinds, rng, say):
  """Starts a run as often as it takes, interrupted by each of kinds; returns the Faults."""
  faults, waiting, reached, exchanged = [], [], 0, False
  for kind in (*kinds, None):
    run.start(exchanged)
    if kind is None:
      assert run.end() == [0] * run.count, run.output()[-3000:]
      in_time = False
    else:
      in_time = interrupt(run, kind, rng)
    if waiting and run.continued() is not None:
      allowed = sum(KINDS[fault.kind].allowed for fault in waiting)
      for fault in waiting:
        fault.reached, fault.continued = reached, run.continued()
        assert fault.lost <= allowed, (fault, run.output())
        say(f"{fault.kind:18s} step {fault.reached:3d}, continued from {fault.continued:3d}")
      faults, waiting, reached = faults + waiting, [], 0
    reached = max(reached, run.step(), run.continued() or 0)
    if in_time:
      waiting.append(Fault(kind, reached))
    exchanged ^= kind == "hosts exchanged"
  return faults


def _group(schedule, rng):
  """[(number of processes, loader processes, kinds of faults of one run)], two to four faults each."""
  runs = []
  for count, workers in sorted({(KINDS[kind].processes, KINDS[kind].workers) for kind in schedule}):
    kinds = [kind for kind in schedule if (KINDS[kind].processes, KINDS[kind].workers) == (count, workers)]
    full = [kind for kind in kinds if kind == "disk full"]
    kinds = [kind for kind in kinds if kind != "disk full"]
    rng.shuffle(kinds)
    while kinds or full:
      size = rng.randrange(2, 5)
      runs.append((count, workers, [full.pop() for _ in full[:1]] + kinds[:size]))
      kinds = kinds[size:]
  return runs


@contextlib.contextmanager
def _small_disk(path):
  """A disk of 500 kB at path, where one can be mounted: yields whether."""
  mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(path)], capture_output=True)
  try:
    yield mounted.returncode == 0
  finally:
    if mounted.returncode == 0:
      subprocess.run(["umount", str(path)], check=True)


def _same(expected, found, damaged_rows):
  assert expected[0].keys() == found[0].keys()
  for name, array in expected[0].items():
    np.testing.assert_array_equal(found[0][name], array, err_msg=name)
  missing = [row for row in expected[1] if row not in found[1]]
  assert len(missing) <= damaged_rows, f"rows of the metrics are missing: {missing}"
  assert [row for row in expected[1] if row not in missing] == found[1], "the metrics differ"


def page(faults, files, seconds, options):
  """docs/reliability.md."""
  lines = []
  for kind in KINDS:
    lost = [fault.lost for fault in faults if fault.kind == kind]
    if lost:
      lines.append(f"| {KINDS[kind].meaning} | {len(lost)} | {np.mean(lost):.1f} | {max(lost)} | 0 | 0 | 0 |")
  changes = [f"| {kind} | {sum(c.values())} | {c['read']} | {c['refused']} | 0 | 0 |" for kind, c in files.items()]
  template = (pathlib.Path(__file__).parent / "reliability.md").read_text()
  return template.format(
    faults="\n".join(lines), files="\n".join(changes), count=len(faults), asked=options.faults,
    changes=options.changes,
    seconds=round(seconds), seed=options.seed, jobs=options.jobs, interval=INTERVAL, steps=STEPS,
    date=datetime.date.today(),
    machine=f"{os.cpu_count()} CPU cores, Python {platform.python_version()}",
  )  # fmt: skip


def main():
  """Runs the campaign in a temporary directory."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--faults", type=int, default=200, help="interruptions")
  parser.add_argument("--changes", type=int, default=2000, help="changed files of each kind")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
  parser.add_argument("--write", help="a Markdown file for the report")
  options = parser.parse_args()
  started, files = time.monotonic(), {}
  schedule = [list(KINDS)[i % len(KINDS)] for i in range(options.faults)]
  with tempfile.TemporaryDirectory() as folder:
    faults = campaign(pathlib.Path(folder), schedule, options.seed, options.jobs)
  for kind in fuzzing.KINDS:
    with tempfile.TemporaryDirectory() as folder:
      files[kind] = fuzzing.run(kind, pathlib.Path(folder), options.changes, options.seed)
  text = page(faults, files, time.monotonic() - started, options)
  print(text)
  if options.write:
    pathlib.Path(options.write).write_text(text)


if __name__ == "__main__":
  main()
