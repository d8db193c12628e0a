"""Signals, the watchdog, and saving by the clock."""

import os
import signal
import subprocess
import sys
import time

from conftest import REPO
import pytest

from mlpvision import heartbeat
from mlpvision.durations import to_seconds
from mlpvision.training.stopping import SaveClock, StopRequest
from mlpvision.training.watchdog import Watchdog


def test_the_clock_is_due_once_per_interval():
  clock = SaveClock(0.2)
  due = []
  for _ in range(10):
    time.sleep(0.05)
    due.append(clock.is_due())
  assert 1 <= sum(due) <= 3
  assert not due[0]
  assert not any(SaveClock(None).is_due() for _ in range(3))


def test_minutes_and_hours():
  assert to_seconds("10 minutes") == 600
  assert to_seconds("1.5 hours") == 5400
  assert to_seconds("1 minute") == 60
  assert to_seconds("10 steps") is None
  assert to_seconds("minutes") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_once_and_ends_the_second_time(number):
  before = signal.signal(number, signal.SIG_DFL)  # under nohup, it is ignored
  try:
    with StopRequest() as stop:
      assert not stop.is_due(1)
      signal.raise_signal(number)
      signal.raise_signal(number)  # at once: a launcher that signals a process and its group
      assert stop.is_due(2)
      assert stop.signal_name == signal.Signals(number).name
      time.sleep(1.1)
      with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signal.getsignal(number) == signal.SIG_DFL
  finally:
    signal.signal(number, before)


def test_nohup_keeps_its_meaning(monkeypatch):
  previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with StopRequest() as stop:
      signal.raise_signal(signal.SIGHUP)
      assert not stop.is_due(1)
  finally:
    signal.signal(signal.SIGHUP, previous)


# A process that waits in C, as for a compiler: Python's own handlers would run only afterwards.
_BUSY = """
import hashlib
from mlpvision.training import stopping
with stopping.StopRequest(of_command="python run.py") as stop:
  stop.running = {running}
  print("ready", flush=True)
  hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8)
"""


@pytest.mark.parametrize(("running", "signals", "code"), [(False, 1, 0), (True, 2, 128 + signal.SIGTERM)])
def test_a_command_ends_even_while_it_waits_in_c(running, signals, code):
  environment = os.environ | {"PYTHONPATH": str(REPO)}
  process = subprocess.Popen(
    [sys.executable, "-c", _BUSY.format(running=running)],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  assert process.stdout.readline() == b"ready\n"
  for _ in range(signals):
    process.send_signal(signal.SIGTERM)
    if signals > 1:
      time.sleep(1.1)
  _, said = process.communicate(timeout=30)
  assert process.returncode == code, said
  assert (b"stopped before the first step; to resume" in said) != running


def _watched(script):
  """(exit code, stderr) of a process with a watchdog of one second; `script` is run inside its context."""
  code = f"import time\nfrom mlpvision import heartbeat\nfrom mlpvision.training.watchdog import Watchdog\n{script}"
  done = subprocess.run(
    [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(REPO)}, capture_output=True, timeout=60
  )
  return done.returncode, done.stderr.decode()


def test_the_watchdog_ends_only_what_makes_no_progress():
  script = """
with Watchdog(1.0) as watchdog:
  heartbeat.beat("step 1")
  for i in range(15):
    time.sleep(0.1)
    heartbeat.beat(f"batch {i}")
  ends = time.monotonic() + 1.5
  while time.monotonic() < ends: pass
  with watchdog.paused(): time.sleep(1.5)
  print("lives", flush=True)
  heartbeat.beat("the last batch")
  time.sleep(30)
"""
  code, said = _watched(script)
  assert code == os.EX_TEMPFAIL, said
  assert "no progress for 1 s (hang_timeout) after the last batch" in said


def test_time_asleep_is_not_a_hang():
  script = "with Watchdog(2.0):\n  heartbeat.beat('step 1'); print('ready', flush=True); time.sleep(1.5)"
  code = f"import time\nfrom mlpvision import heartbeat\nfrom mlpvision.training.watchdog import Watchdog\n{script}"
  process = subprocess.Popen(
    [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(REPO)}, stdout=subprocess.PIPE
  )
  process.stdout.readline()
  process.send_signal(signal.SIGSTOP)
  time.sleep(3)
  process.send_signal(signal.SIGCONT)
  assert process.wait(timeout=30) == 0


def test_every_step_and_evaluation_batch_is_a_beat():
  before = heartbeat.count
  with Watchdog(None):
    heartbeat.beat("step 3")
  assert heartbeat.what == "step 3"
  assert heartbeat.count == before + 2
