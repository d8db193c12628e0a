"""The README's first command in full, and the paper's Table 7 on the same images."""

import json
import pathlib
import re

import pytest

_README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def _train_command():
  """What the README's first command runs after the installation."""
  (line,) = re.findall(r"^.*pip install -e '\.\[quickstart\]' && \.venv/bin/python (.*)$", _README, re.MULTILINE)
  return line.split()


def _accuracy(workdir):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [row["val/top1"] for row in rows if "val/top1" in row][-1]


@pytest.mark.slow
def test_the_quickstart_learns_to_read_digits(command, tmp_path):
  code, output = command(*_train_command(), f"--workdir={tmp_path}")
  assert code == 0, output
  assert _accuracy(tmp_path) >= 0.965


@pytest.mark.slow
def test_without_shifts_it_does_not(command, tmp_path):
  """Table 7: information passes between patches by the shifts alone."""
  directions = ("--config.model.directions=none", "--config.duration=5 epochs")
  code, output = command(*_train_command(), *directions, f"--workdir={tmp_path}")
  assert code == 0, output
  assert 0.2 < _accuracy(tmp_path) < 0.7
