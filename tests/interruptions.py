"""Interrupts a run in every way a machine knows: the kinds of interruption of `campaign.py`."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).parent.parent
STEPS, INTERVAL = 150, 10
FLAGS = (
  "--config=configs/quickstart.py", "--config.model.num_blocks=1", "--config.model.hidden_dim=32",
  "--config.model.drop_path=0.2", "--config.data.batch_size=48", "--config.augment.mixup=0.8",
  "--config.augment.repeats=3", "--config.ema_decay=0.9", "--config.optim.schedule.warmup=5 steps",
  f"--config.checkpoint.every={INTERVAL} steps", "--config.log_every=1 steps",
  "--config.hang_timeout=1 minute",
)  # fmt: skip
_DEVICES = 4
_QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"  # to compile


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of interruption.

  allowed: steps that may have to be done again. A save that is under way when a run dies, or that fails, does not count
    yet: two intervals.
  """

  meaning: str
  allowed: int = 2 * INTERVAL
  processes: int = 1
  workers: int = 0


KINDS = {
  "kill": Kind("`kill -9` at any moment, also during startup"),
  "kill in a save": Kind("`kill -9` while a checkpoint is written"),
  "SIGTERM": Kind("SIGTERM", 0),
  "SIGINT": Kind("Ctrl-C", 0),
  "SIGHUP": Kind("SIGHUP, as from a terminal that is closed", 0),
  "SIGTERM twice": Kind("SIGTERM to the process and to its group, as `timeout` sends it", 0),
  "signal at the start": Kind("any of these signals before the first step", 0),
  "closed output": Kind("the reader of the output goes away, then SIGTERM", 0),
  "second run": Kind("the same command started again while the run is at work; the second one is refused", 0),
  "truncated file": Kind("SIGTERM, then a file of the newest checkpoint truncated to half", INTERVAL),
  "small file": Kind("SIGTERM, then a small file of the newest checkpoint emptied, cut or changed", INTERVAL),
  "damaged metrics": Kind("SIGTERM, then a line of metrics.jsonl torn or changed", 0),
  "files of the future": Kind("SIGTERM, then all files dated ten years ahead, as after setting the clock back", 0),
  "disk full": Kind("disk full, then enlarged"),
  "read-only": Kind("the checkpoint directory becomes read-only, then writable again"),
  "loader killed": Kind("`kill -9` to a loader process", workers=2),
  "group": Kind("SIGTERM to a run and its loader processes", 0, workers=2),
  "kill with loaders": Kind("`kill -9` to a run with loader processes, which end by themselves", workers=2),
  "one of two killed": Kind("two processes, `kill -9` to one; the other exits by itself", processes=2),
  "hosts exchanged": Kind("two processes, SIGTERM to one, restarted in the other order", 0, processes=2),
  "Ctrl-C to both": Kind("two processes, Ctrl-C to both", 0, processes=2),
  "one of four killed": Kind("four processes, `kill -9` to one", processes=4),
  "signal to one of four": Kind("four processes, a signal to one", 0, processes=4),
}


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

  def __init__(self, workdir, count, workers=0, steps=STEPS):
    self.workdir, self.count, self.workers, self.steps = pathlib.Path(workdir), count, workers, steps
    self.processes = []

  def start(self, exchanged=False, output=None):
    with socket.socket() as probe:
      probe.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{probe.getsockname()[1]}"
    self.logs, self.piped = [], output is not None
    for i in reversed(range(self.count)) if exchanged else range(self.count):
      devices = _DEVICES // self.count
      env = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {_QUICK}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONUNBUFFERED": "1",
        "JAX_COMPILATION_CACHE_DIR": str(self.workdir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      }
      if self.count > 1:
        env |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(self.count), "JAX_PROCESS_ID": str(i)}
      log = self.workdir.parent / f"{self.workdir.name}-{i}.log"
      self.logs.append(log)
      with log.open("w") as out:
        pipes = dict(stdin=subprocess.DEVNULL, stdout=out if output is None else output, stderr=out)
        self.processes.append(subprocess.Popen(self.command(), cwd=REPO, env=env, start_new_session=True, **pipes))
    self.logs.sort()

  def command(self):
    length = (f"--config.duration={self.steps} steps", f"--config.eval.every={self.steps // 2} steps")
    flags = (*FLAGS, *length, f"--config.data.workers={self.workers}", f"--workdir={self.workdir}")
    return [sys.executable, "train.py", *flags]

  def output(self):
    return self.logs[0].read_text()

  def step(self):
    """The last step that was reported since the start, or 0."""
    if self.piped:
      rows = (self.workdir / "metrics.jsonl").read_text().splitlines()
      return json.loads(rows[-1])["step"]
    steps = re.findall(rf"^step +(\d+)/{self.steps}", self.output(), re.MULTILINE)
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

  def loaders(self):
    """Process ids of the loader processes."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
      with contextlib.suppress(OSError):
        session = int((path / "stat").read_text().rpartition(")")[2].split()[3])
        if session == self.processes[0].pid and b"spawn_main" in (path / "cmdline").read_bytes():
          found.append(int(path.name))
    return found


def interrupt(run, kind, rng):
  """Does one of KINDS to a run that was just started, and waits for its end. Returns whether it was in time."""
  if kind == "kill":
    time.sleep(rng.uniform(0, 10))  # also while it imports, restores or compiles
    run.kill()
  elif kind == "kill in a save":
    for _ in range(rng.randrange(1, run.steps // 30)):
      run.wait_for(lambda: not _saving(run.workdir))
      run.wait_for(lambda: _saving(run.workdir))
    time.sleep(rng.uniform(0, 0.02))
    run.kill()
  elif kind == "signal at the start":
    time.sleep(rng.uniform(0, 6))
    if not run.step():
      run.processes[0].send_signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
  elif kind != "disk full":  # which comes by itself
    run.wait_for(run.step)
    goal = run.step() + rng.randrange(1, run.steps // 3)
    if run.wait_for(lambda: run.step() >= goal):
      _DO[kind](run, rng)
  loaders = run.loaders() if kind == "kill with loaders" else []
  codes, output = run.end(), run.output()
  if "done: top-1" in output:
    return False
  assert "Traceback" not in output, output[-3000:]
  if kind == "disk full":
    assert codes == [2], output[-3000:]
    assert "could not be written" in output or "[Errno 28] No space left" in output, output[-3000:]
    subprocess.run(["mount", "-o", "remount,size=64m", str(run.workdir)], check=True)
  elif kind == "read-only":
    _set_read_only(run.workdir / "checkpoints", False)
    assert codes == [2], output[-3000:]
  elif kind == "signal at the start":
    assert codes[0] in (0, 130, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP), output[-3000:]
  elif kind == "loader killed":
    assert codes == [2], output[-3000:]
    assert "signal 9" in output, output[-3000:]
  elif kind == "kill with loaders":
    deadline = time.monotonic() + 20
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in loaders):
      assert time.monotonic() < deadline, "loader processes stay"
      time.sleep(0.1)
  elif "kill" in kind:
    assert all(codes), output[-3000:]
  else:
    assert codes == [0] * run.count, (codes, output[-3000:])
  if kind in _AFTERWARDS:
    _AFTERWARDS[kind](run.workdir, rng)
  return True


def _signal(*numbers):
  """Sends one of the signals to one of the processes."""
  return lambda run, rng: rng.choice(run.processes).send_signal(rng.choice(numbers))


def _signal_group(run, rng):
  del rng
  os.killpg(run.processes[0].pid, signal.SIGTERM)


def _signal_twice(run, rng):
  run.processes[0].send_signal(signal.SIGTERM)
  time.sleep(rng.uniform(0, 0.2))
  _signal_group(run, rng)


def _interrupt_all(run, rng):
  for process in rng.sample(run.processes, run.count):
    process.send_signal(signal.SIGINT)
    time.sleep(rng.uniform(0, 0.5))


def _kill_loader(run, rng):
  os.kill(rng.choice(run.loaders()), signal.SIGKILL)


def _start_second(run, rng):
  """Starts the same command beside the run, and stops the run once the second has been refused."""
  env = os.environ | {"JAX_PLATFORMS": "cpu"}
  second = subprocess.run(run.command(), cwd=REPO, env=env, capture_output=True, text=True, timeout=120)
  if run.processes[0].poll() is None:
    assert second.returncode == 2, second.stdout + second.stderr
  _signal(signal.SIGTERM)(run, rng)


def _close_output(run, rng):
  """Starts the run anew, with a pipe for its output whose reader goes away at some step."""
  _signal(signal.SIGTERM)(run, rng)
  assert run.end() == [0], run.output()[-3000:]
  reader, writer = os.pipe()
  run.start(output=writer)
  os.close(writer)
  goal = rng.randrange(1, 30)
  with os.fdopen(reader) as lines:
    for _ in zip(range(goal + 8), lines, strict=False):
      pass
  time.sleep(rng.uniform(0, 1))
  _signal(signal.SIGTERM)(run, rng)


def _make_read_only(run, rng):
  del rng
  _set_read_only(run.workdir / "checkpoints", True)


def _set_read_only(path, is_set):
  if os.geteuid():
    path.chmod(0o555 if is_set else 0o755)
  else:  # to whom permissions do not apply
    subprocess.run(["chattr", "+i" if is_set else "-i", str(path)], check=True)


_DO = {
  **dict.fromkeys(("SIGTERM", "truncated file", "small file", "damaged metrics"), _signal(signal.SIGTERM)),
  **dict.fromkeys(("files of the future", "hosts exchanged"), _signal(signal.SIGTERM)),
  **dict.fromkeys(("one of two killed", "one of four killed", "kill with loaders"), _signal(signal.SIGKILL)),
  "SIGINT": _signal(signal.SIGINT),
  "SIGHUP": _signal(signal.SIGHUP),
  "signal to one of four": _signal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
  "SIGTERM twice": _signal_twice,
  "group": _signal_group,
  "Ctrl-C to both": _interrupt_all,
  "second run": _start_second,
  "closed output": _close_output,
  "read-only": _make_read_only,
  "loader killed": _kill_loader,
}


def _saving(workdir):
  folder = workdir / "checkpoints"
  return folder.is_dir() and any("orbax-checkpoint-tmp" in name for name in os.listdir(folder))


def _newest_files(workdir):
  """The files of the newest checkpoint, from small to large."""
  newest = max((p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
  return sorted((p for p in newest.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p.name))


def _truncate(workdir, rng):
  del rng
  file = _newest_files(workdir)[-1]
  os.truncate(file, file.stat().st_size // 2)


def _damage(workdir, rng):
  file = rng.choice([path for path in _newest_files(workdir) if path.stat().st_size < 10_000])
  data = bytearray(file.read_bytes())
  how = rng.choice(("empty", "half", "changed"))
  if how == "changed" and data:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  file.write_bytes(data if how == "changed" else data[: len(data) // 2] if how == "half" else b"")


def _damage_metrics(workdir, rng):
  path = workdir / "metrics.jsonl"
  lines = path.read_bytes().splitlines(keepends=True)
  line = rng.randrange(len(lines))
  lines[line] = rng.choice((b"\xff" + lines[line], lines[line][:9] + b"\n", b"5\n", b"{}\n", bytes(20) + b"\n"))
  path.write_bytes(b"".join(lines))


def _date_ahead(workdir, rng):
  del rng
  then = time.time() + 10 * 365 * 86400
  for path in (workdir, *workdir.rglob("*")):
    os.utime(path, (then, then))


_AFTERWARDS = {
  "truncated file": _truncate,
  "small file": _damage,
  "damaged metrics": _damage_metrics,
  "files of the future": _date_ahead,
}
