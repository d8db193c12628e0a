"""Interrupts real runs in every way a machine knows and checks that nothing is lost.

  python tests/campaign.py --faults=50 --write=docs/reliability.md

Runs are small (S2-MLP on the digits) and real: whole processes, real signals, real disks. Each run is interrupted
several times and then left to finish. Its final parameters and their average must equal those of a run that nobody
disturbed, bit for bit, and so must every row of its metrics.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

REPO = pathlib.Path(__file__).parent.parent
STEPS, INTERVAL = 150, 10
FLAGS = (
  "--config=configs/quickstart.py", "--config.model.num_blocks=1", "--config.model.hidden_dim=32",
  "--config.model.drop_path=0.2", "--config.data.batch_size=48", "--config.augment.mixup=0.8",
  "--config.augment.repeats=3", "--config.ema_decay=0.9", "--config.optim.schedule.warmup=5 steps",
  f"--config.duration={STEPS} steps", f"--config.checkpoint.every={INTERVAL} steps", "--config.log_every=1 steps",
  "--config.eval.every=75 steps", "--config.hang_timeout=1 minute",
)  # fmt: skip
KINDS = ("kill", "kill in a save", "SIGTERM", "truncated file", "disk full", "one of two killed", "hosts exchanged")
_TWO_PROCESSES = ("one of two killed", "hosts exchanged")
_DEVICES = 2
# Steps that may have to be done again. A save that is under way when a run dies, or that fails, does not count yet: two
# intervals for all others.
_ALLOWED = {"SIGTERM": 0, "hosts exchanged": 0, "truncated file": INTERVAL}


@dataclasses.dataclass
class Fault:
  """One interruption: the last step that was reported before, and the one that the run continued from after it."""

  kind: str
  reached: int
  continued: int | None = None

  @property
  def lost(self):
    return self.reached - self.continued


class Run:
  """A workdir and the processes at work on it."""

  def __init__(self, workdir, count):
    self.workdir, self.count, self.processes = pathlib.Path(workdir), count, []

  def start(self, exchanged=False):
    with socket.socket() as probe:
      probe.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{probe.getsockname()[1]}"
    self.logs = []
    for i in reversed(range(self.count)) if exchanged else range(self.count):
      devices = _DEVICES // self.count
      env = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONUNBUFFERED": "1",
      }
      if self.count > 1:
        env |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(self.count), "JAX_PROCESS_ID": str(i)}
      log = self.workdir.parent / f"{self.workdir.name}-{i}.log"
      self.logs.append(log)
      with log.open("w") as out:
        command = [sys.executable, "train.py", *FLAGS, f"--workdir={self.workdir}"]
        self.processes.append(subprocess.Popen(command, cwd=REPO, env=env, stdout=out, stderr=out))
    self.logs.sort()

  def output(self):
    return self.logs[0].read_text()

  def step(self):
    """The last step that was reported since the start, or 0."""
    steps = re.findall(rf"^step +(\d+)/{STEPS}", self.output(), re.MULTILINE)
    return int(steps[-1]) if steps else 0

  def continued(self):
    """The step that this start continues from, or None where it did not come so far."""
    found = re.search(r"resuming from step (\d+)", self.output())
    return int(found[1]) if found else 0 if "compiled in" in self.output() else None

  def wait_for(self, condition, seconds=120):
    """True once the condition holds, False where the processes end before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
      if condition():
        return True
      if all(p.poll() is not None for p in self.processes):
        return False
      time.sleep(0.002)
    raise TimeoutError(f"{self.workdir}: nothing happened in {seconds} s:\n{self.output()[-3000:]}")

  def end(self, seconds=150):
    """Exit codes, once all processes have ended by themselves."""
    codes = [process.wait(timeout=seconds) for process in self.processes]
    self.processes = []
    return codes

  def kill(self):
    for process in self.processes:
      process.kill()


def interrupt(run, kind, rng):
  """Does one of KINDS to a run that was just started, and waits for its end. Returns whether it was in time."""
  if kind == "kill":
    time.sleep(rng.uniform(0, 10))  # also while it imports, restores or compiles
    run.kill()
  elif kind == "kill in a save":
    for _ in range(rng.randrange(1, 5)):
      run.wait_for(lambda: not _saving(run.workdir))
      run.wait_for(lambda: _saving(run.workdir))
    time.sleep(rng.uniform(0, 0.02))
    run.kill()
  elif kind != "disk full":  # which comes by itself
    run.wait_for(run.step)
    goal = run.step() + rng.randrange(1, 50)
    if run.wait_for(lambda: run.step() >= goal):
      rng.choice(run.processes).send_signal(signal.SIGKILL if kind == "one of two killed" else signal.SIGTERM)
  codes, output = run.end(), run.output()
  if "done: top-1" in output:
    return False
  if kind in ("SIGTERM", "truncated file", "hosts exchanged"):
    assert codes == [0] * run.count, output[-3000:]
  elif kind == "disk full":
    assert codes == [2], output[-3000:]
    assert "could not be written" in output or "error: [Errno 28] No space left" in output, output[-3000:]
    subprocess.run(["mount", "-o", "remount,size=64m", str(run.workdir)], check=True)
  elif kind == "one of two killed":
    assert all(codes), output[-3000:]
  if kind == "truncated file":
    _truncate(run.workdir)
  return True


def _saving(workdir):
  folder = workdir / "checkpoints"
  return folder.is_dir() and any("orbax-checkpoint-tmp" in name for name in os.listdir(folder))


def _truncate(workdir):
  newest = max((p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
  file = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  os.truncate(file, file.stat().st_size // 2)


def final_state(workdir):
  """Every array of the last checkpoint, by name, and the rows of the metrics without rates."""
  sys.path.insert(0, str(REPO))
  from mlpvision import checkpoints

  arrays = {}
  for ema in (False, True):
    params, _, step = checkpoints.load_weights(workdir, ema=ema)
    assert step == STEPS
    arrays |= {f"{ema}{path}": np.asarray(x) for path, x in _leaves(params)}
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return arrays, [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def _leaves(tree, prefix=""):
  for key, value in tree.items():
    yield from _leaves(value, f"{prefix}/{key}") if isinstance(value, dict) else [(f"{prefix}/{key}", value)]


def campaign(folder, schedule, seed, say=print):
  """Interrupts as often as the schedule has KINDS; returns the Faults. AssertionError where anything differs."""
  rng, done, reference = random.Random(seed), [], {}
  for number, (count, kinds) in enumerate(_group(schedule, rng)):
    if count not in reference:
      run = Run(folder / f"undisturbed-{count}", count)
      run.start()
      assert run.end() == [0] * count, run.output()[-3000:]
      reference[count] = final_state(run.workdir)
    run = Run(folder / f"run-{number}", count)
    run.workdir.mkdir()
    with _small_disk(run.workdir) if kinds[0] == "disk full" else contextlib.nullcontext(True) as mounted:
      if not mounted:
        say("no disk of its own can be mounted here: no fault of the kind 'disk full'")
        kinds = kinds[1:]
      done += _disturb(run, kinds, rng, say)
      _same(reference[count], final_state(run.workdir))
    shutil.rmtree(run.workdir, ignore_errors=True)
  return done


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
      allowed = sum(_ALLOWED.get(fault.kind, 2 * INTERVAL) for fault in waiting)
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
  """[(number of processes, kinds of faults of one run)], two to four faults each."""
  runs = []
  for count in (1, 2):
    kinds = [kind for kind in schedule if (kind in _TWO_PROCESSES) == (count == 2)]
    full = [kind for kind in kinds if kind == "disk full"]
    kinds = [kind for kind in kinds if kind != "disk full"]
    rng.shuffle(kinds)
    while kinds or full:
      size = rng.randrange(2, 5)
      runs.append((count, [full.pop() for _ in full[:1]] + kinds[:size]))
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


def _same(expected, found):
  assert expected[0].keys() == found[0].keys()
  for name, array in expected[0].items():
    np.testing.assert_array_equal(found[0][name], array, err_msg=name)
  assert expected[1] == found[1], "the metrics differ"


def table(faults, seconds, seed):
  """The report as Markdown."""
  lines = ["| interruption | times | steps repeated, mean | most | results that differ |", "|---|---|---|---|---|"]
  for kind in KINDS:
    lost = [fault.lost for fault in faults if fault.kind == kind]
    if lost:
      lines.append(f"| {_MEANING[kind]} | {len(lost)} | {np.mean(lost):.1f} | {max(lost)} | 0 |")
  return _PAGE.format(
    table="\n".join(lines), count=len(faults), seconds=round(seconds), seed=seed, interval=INTERVAL, steps=STEPS,
    machine=f"{os.cpu_count()} CPU cores, Python {platform.python_version()}", date=datetime.date.today(),
  )  # fmt: skip


_MEANING = {
  "kill": "`kill -9` at any moment, also during startup",
  "kill in a save": "`kill -9` while a checkpoint is written",
  "SIGTERM": "SIGTERM",
  "truncated file": "SIGTERM, then a file of the newest checkpoint truncated to half",
  "disk full": "disk full, then enlarged",
  "one of two killed": "two processes, `kill -9` to one; the other exits by itself",
  "hosts exchanged": "two processes, SIGTERM to one, restarted in the other order",
}
_PAGE = """# Reliability

This page reports what happens when a training run is interrupted. Runs were interrupted {count} times, by `python
tests/campaign.py --faults={count} --seed={seed} --write=docs/reliability.md` ({machine}, {date}, {seconds} s). Each
training run has {steps} steps and saves every {interval} steps. It is interrupted several times and then completes.
Drop path, mixup, repeated augmentation and EMA are enabled.

{table}

All runs ended with the same parameters and EMA as an uninterrupted run, bit for bit, and with the same rows of metrics.

A resumed run repeats the steps since the newest complete checkpoint, with the same results as the first time. SIGTERM
costs no steps. A kill costs up to {interval} steps, plus the steps that ran while a checkpoint was being written or
could not be written.
"""


def main():
  """Runs the campaign in a temporary directory."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--faults", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--write", help="a Markdown file for the report")
  options = parser.parse_args()
  started = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    schedule = [KINDS[i % len(KINDS)] for i in range(options.faults)]
    faults = campaign(pathlib.Path(folder), schedule, options.seed)
  page = table(faults, time.monotonic() - started, options.seed)
  print(page)
  if options.write:
    pathlib.Path(options.write).write_text(page)


if __name__ == "__main__":
  main()
