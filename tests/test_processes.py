"""Several processes, as on several hosts: the same training, and a signal to one of them stops all at one step."""

import json
import re
import signal
import socket

from conftest import SMALL
import numpy as np

from mlpvision.checkpoints import load_weights


def _start_two(start, workdir, steps):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  flags = (*SMALL, f"--config.duration={steps} steps", "--config.log_every=2 steps", "--config.eval.every=1000 steps")
  return [
    start(
      *("train.py", *flags, f"--workdir={workdir}"),
      devices=4,
      JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
      JAX_NUM_PROCESSES="2",
      JAX_PROCESS_ID=str(i),
    )
    for i in range(2)
  ]


def _losses(workdir):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [row["train/loss"] for row in rows if "train/loss" in row] + [rows[-1]["val/loss"], rows[-1]["val/top1"]]


def test_two_processes_train_and_stop_as_one(start, command, tmp_path):
  whole, split = tmp_path / "one", tmp_path / "two"
  flags = (*SMALL, "--config.duration=60 steps", "--config.log_every=2 steps", "--config.eval.every=1000 steps")
  code, output = command("train.py", *flags, f"--workdir={whole}", devices=8)
  assert code == 0, output

  processes = _start_two(start, split, 60)
  for line in processes[0].stdout:
    if "step 10/60" in line:
      break
  processes[1].send_signal(signal.SIGTERM)  # to the one that does not report
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  stopped = re.search(r"stopped after step (\d+); to continue", outputs[0])
  assert stopped, outputs[0]
  assert load_weights(split)[2] == int(stopped[1]) < 60

  processes = _start_two(start, split, 60)
  outputs = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert f"continuing from step {stopped[1]}\n" in outputs[0]
  assert "8 x cpu in 2 processes, mesh data=8" in outputs[0]
  assert "loss" not in outputs[1]
  np.testing.assert_allclose(_losses(split), _losses(whole), rtol=1e-4)
