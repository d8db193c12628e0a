"""Several processes, as on several hosts: the same training, and a signal to one of them stops all at one step."""

import csv
import functools
import json
import os
import re
import shutil
import signal
import socket
import sys

from conftest import SMALL
import numpy as np
import pytest

from mlpvision import workdir as workdir_lib
from mlpvision.checkpoints import load_variables
from mlpvision.evaluate import run as evaluate_lib
from mlpvision.training import loop


def _explicit(i):
  return {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{_port()}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(i)}


def _slurm(i):
  """What srun sets for two tasks on one node; JAX makes the coordinator's port from the job's number."""
  job = str(_port())
  names = {"JOB_ID": job, "STEP_NODELIST": "127.0.0.1", "NTASKS": "2", "PROCID": str(i), "LOCALID": str(i)}
  return {f"SLURM_{name}": value for name, value in names.items()}


@functools.cache
def _port():
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


# Instead of train.py; `python` is found on the path, as in the image.
_POD = ("-c", "import os, sys; os.execv('launch/pod.sh', ['pod.sh', *sys.argv[1:]])")
_PATH = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])


def _start_two(start, workdir, steps, *flags, launcher=_explicit, devices=4, program=("train.py",)):
  _port.cache_clear()
  flags = (*SMALL, f"--config.duration={steps} steps", "--config.log_every=2 steps", *flags)
  flags = (*program, *flags, "--config.eval.every=1000 steps", f"--workdir={workdir}")
  return [start(*flags, devices=devices, PATH=_PATH, **launcher(i)) for i in range(2)]


def _losses(workdir):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [row["train/loss"] for row in rows if "train/loss" in row] + [rows[-1]["val/loss"], rows[-1]["val/top1"]]


def test_one_process_then_two_then_one_train_as_one(start, small_config, tmp_path):
  """SIGTERM to one of the two stops both; the single process is this one, on its eight devices.

  The two are pods, by launch/pod.sh: the one that is preempted has failed, so that Kubernetes starts both again.
  """
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  small_config.update(duration="60 steps", log_every="2 steps")
  small_config.eval.every = "1000 steps"
  small_config.checkpoint.update(every="10 steps", keep=6)
  loop.train_and_evaluate(small_config, whole)
  shutil.copytree(whole, parts)
  for path in (parts / "checkpoints").iterdir():
    if path.name != "10":
      shutil.rmtree(path)

  checkpoints = ("--config.checkpoint.every=10 steps", "--config.checkpoint.keep=6")
  processes, output = _start_two(start, parts, 60, *checkpoints, program=_POD), ""
  for line in processes[0].stdout:
    output += line
    if "step 24/60" in line:
      break
  processes[1].send_signal(signal.SIGTERM)  # to the one that does not report
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 128 + signal.SIGTERM], output + outputs[0]
  stopped = int(re.search(r"stopped after step (\d+); to resume", outputs[0])[1])
  assert "resuming from step 10\n" in output
  assert "8 x cpu in 2 processes, mesh data=8" in output
  assert "loss" not in outputs[1]
  assert load_variables(parts)[2] == stopped < 60
  loop.train_and_evaluate(small_config, parts)
  np.testing.assert_allclose(_losses(parts), _losses(whole), rtol=1e-4)

  # The results of every image, by two processes and by one; process 0 alone prints and writes.
  _port.cache_clear()
  command = ("-m", "mlpvision.evaluate", f"--weights={parts}", f"--csv={tmp_path}/images.csv")
  processes = [start(*command, devices=2, **_explicit(i)) for i in range(2)]
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert "\npreprocessing: 28 pixels" in outputs[0]
  assert not re.sub(r"\[Gloo\].*\n", "", outputs[1])
  found, expected = [*csv.DictReader(open(tmp_path / "images.csv"))], evaluate_lib.evaluate(parts, per_image=True)
  assert len(found) == 1000
  for a, b in zip(found, expected["per_image"], strict=True):
    assert (int(a["index"]), a["label"]) == (b["index"], b["label"])
    assert float(a["loss"]) == pytest.approx(b["loss"], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_ctrl_c_to_all_processes(start, tmp_path):
  """As a terminal or srun sends it; JAX's service then has to agree with two processes that both want to stop."""
  processes = _start_two(start, tmp_path, 100_000, "--config.hang_timeout=1 minute")
  for line in processes[0].stdout:
    if "step      4/" in line:
      break
  for process in processes:
    process.send_signal(signal.SIGINT)
  outputs = [process.communicate(timeout=60)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert load_variables(tmp_path)[2] == int(re.search(r"stopped after step (\d+)", outputs[0])[1])


@pytest.mark.slow
def test_a_peer_that_never_comes(start, tmp_path):
  command = ("train.py", *SMALL, "--config.hang_timeout=0.1 minutes", f"--workdir={tmp_path}")
  process = start(*command, **_explicit(1))
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 75, output
  assert "error: not all processes connected within 6 s (this is process 1 of 2)" in output
  assert "coordinator (127.0.0.1:" in output


def test_a_peer_that_hangs_ends_the_other(start, tmp_path):
  """One that dies is among the kinds of `test_campaign.py`."""
  processes = _start_two(start, tmp_path, 100_000, "--config.hang_timeout=0.15 minutes", launcher=_slurm, devices=1)
  output = ""
  for line in processes[0].stdout:
    output += line
    if "step    100/" in line:
      break
  processes[1].send_signal(signal.SIGSTOP)
  output += processes[0].communicate(timeout=60)[0]
  assert processes[0].returncode == 75, output
  assert re.search(r"error: process 0 of 2: no progress for 9 s.*Another process is probably dead", output), output


@pytest.mark.slow
def test_a_workdir_in_use_refuses_every_process(start, tmp_path):
  with workdir_lib.hold(tmp_path):
    processes = _start_two(start, tmp_path, 4)
    outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [2, 2], outputs
  assert f"{tmp_path} is in use by another run: process {os.getpid()} on " in outputs[0]
  assert f"process 0 could not lock {tmp_path}" in outputs[1]
  assert {path.name for path in tmp_path.iterdir()} == {".lock"}


@pytest.mark.slow
def test_one_row_per_host(start, tmp_path):
  flags = ("--config.data.batch_size=2", "--config.data.eval_split=test[:1]", "--config.eval.batch_size=1")
  processes = _start_two(start, tmp_path, 6, *flags, devices=1)
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert "on 1 test images" in outputs[0]
