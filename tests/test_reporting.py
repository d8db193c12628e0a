"""The progress line, metrics.jsonl and the picture."""

import contextlib
import io
import json
import os
import resource

import numpy as np
from PIL import Image
import pytest
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.compat.tensorflow_stub.errors import OutOfRangeError

from mlpvision.errors import UserError
from mlpvision.reporting import curves, metrics, overview
from mlpvision.reporting.progress import Progress, clock


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def _progress(stream, **options):
  return Progress(start_step=0, total_steps=100, steps_per_epoch=50, batch_size=8, stream=stream, **options)


def test_plain_lines_without_a_terminal():
  stream = io.StringIO()
  progress = _progress(stream)
  with progress.waiting():
    pass
  rates = progress.report(25, 1.23456)
  progress.say("evaluated")
  first, second = stream.getvalue().splitlines()
  assert first.startswith("step  25/100  epoch 0.50  loss 1.2346  ")
  assert " images/s  data wait " in first
  assert " ETA " in first
  assert second == "evaluated"
  assert rates["perf/images_per_second"] > 0
  assert 0 <= rates["perf/data_wait"] <= 1


def test_in_place_on_a_terminal():
  stream = _Terminal()
  progress = _progress(stream)
  progress.report(10, 1.0)
  progress.report(20, 1.0)
  assert "\n" not in stream.getvalue()
  assert stream.getvalue().count("\r") == 2
  progress.say("evaluated")
  assert stream.getvalue().endswith("\nevaluated\n")


def test_other_processes_are_quiet():
  stream = io.StringIO()
  progress = _progress(stream, quiet=True)
  progress.report(10, 1.0)
  progress.say("nothing")
  assert stream.getvalue() == ""


def test_waiting_and_pauses_are_accounted(monkeypatch):
  now = [100.0]
  monkeypatch.setattr("time.perf_counter", lambda: now[0])
  progress = _progress(io.StringIO())
  with progress.waiting():
    now[0] += 1.0
  now[0] += 9.0
  progress.pause(6.0)  # an evaluation among them
  rates = progress.report(10, 1.0)
  assert rates == {"perf/images_per_second": 10 * 8 / 4.0, "perf/data_wait": 0.25}


def test_lines_come_by_time_too(monkeypatch):
  now, stream = [100.0], io.StringIO()
  monkeypatch.setattr("time.perf_counter", lambda: now[0])
  slow = _progress(stream)
  assert not slow.is_late()
  now[0] += 40.0  # for two steps
  assert slow.is_late()
  slow.show(2, 1.0)
  assert not slow.is_late()
  now[0] += 40.0
  # A line between two reports does not take steps from the second one.
  assert slow.report(4, 1.0)["perf/images_per_second"] == 4 * 8 / 80
  assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["2/100", "4/100"]
  assert "  0.4 images/s  " in stream.getvalue()

  stream = io.StringIO()
  fast = _progress(stream, every=60.0)
  for step in range(10, 101, 10):
    now[0] += 15.0
    fast.report(step, 1.0)
  assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["40/100", "80/100", "100/100"]


@pytest.mark.parametrize(("columns", "last"), [(200, "ETA 0:00"), (70, "ETA 0:00"), (26, "ETA 0:00"), (8, "step 20")])
def test_a_line_is_no_wider_than_the_terminal(monkeypatch, columns, last):
  monkeypatch.setenv("COLUMNS", str(columns))
  monkeypatch.setattr("time.perf_counter", lambda: 100.0)
  stream = _Terminal()
  progress = Progress(start_step=0, total_steps=20, steps_per_epoch=5, batch_size=8, stream=stream)
  progress.report(20, 1.0)
  line = stream.getvalue().removeprefix("\r\x1b[K")
  assert len(line) < columns
  assert line.startswith("step 20"[:columns])
  assert line.endswith(last)
  assert ("data wait" in line) == (columns == 200)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_clock(seconds, text):
  assert clock(seconds) == text


def test_metrics_continue_after_a_kill(tmp_path):
  writer = metrics.MetricWriter(tmp_path, start_step=0)
  for step in (10, 20, 30):
    writer.write(step, **{"train/loss": 1.0 / step})
  writer.close()
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 40, "train/lo')  # cut by a kill
  writer = metrics.MetricWriter(tmp_path, start_step=20)  # the last checkpoint
  writer.write(30, **{"train/loss": 0.5})
  writer.close()
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows] == [10, 20, 30]
  assert rows[-1]["train/loss"] == 0.5
  expected = [(10, np.float32(1 / 10)), (20, np.float32(1 / 20)), (30, np.float32(1 / 30)), (30, 0.5)]
  assert sorted(_events(tmp_path), key=lambda event: (event[0], event[1] == 0.5)) == expected


def _events(directory):
  """(step, value) of all scalars, by TensorBoard's own reader, which checks the sums."""
  for path in directory.glob("events.out.tfevents.*"):
    reader = pywrap_tensorflow.PyRecordReader_New(str(path))
    with contextlib.suppress(OutOfRangeError):
      while True:
        reader.GetNext()
        event = event_pb2.Event.FromString(reader.record())
        for value in event.summary.value:
          yield event.step, value.simple_value


_GOOD = b'{"step": 10, "train/loss": 1.0}\n'


@pytest.mark.parametrize(
  "line",
  [
    b'{"step": 20, "tr\xff": 1.0}\n',
    b'{"step": 20, "tr',
    b"5\n",
    b"{}\n",
    b"[]\n",
    b"null\n",
    b"\n",
    bytes(100),
    b'{"step": "20"}\n',
    b'{"step": true}\n',
    b'{"step": -1}\n',
    b'{"step": 20, "x": "y"}\n',
    b'{"step": 20, "x": [1]}\n',
    b'{"step": 20, "x": 1' + b"0" * 400 + b"}\n",
    b'{"step": 20, "x\\ud800": 1}\n',
    b"[" * 100_000 + b"\n",
  ],
  ids=range(16),
)
def test_a_damaged_line_is_named_and_set_aside(tmp_path, caplog, line):
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(_GOOD + line)
  assert metrics.read(tmp_path) == [json.loads(_GOOD)]
  assert curves.draw(tmp_path)
  metrics.MetricWriter(tmp_path, start_step=20).close()
  assert path.read_bytes() == _GOOD
  assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == line.rstrip(b"\n") + b"\n"
  assert f"{path} IS DAMAGED" in caplog.text
  assert caplog.text.rstrip().endswith(": 2")


def test_metrics_are_replaced_only_if_a_line_must_go(tmp_path):
  path, target = tmp_path / "metrics.jsonl", tmp_path / "elsewhere"
  target.write_bytes(_GOOD + _GOOD.replace(b"10", b"20"))
  path.symlink_to(target)
  before = os.stat(target)
  metrics.MetricWriter(tmp_path, start_step=20).close()
  after = os.stat(target)
  assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
  metrics.MetricWriter(tmp_path, start_step=10).close()
  assert os.stat(target).st_ino != before.st_ino  # never written in place
  assert path.is_symlink()
  assert path.read_bytes() == _GOOD
  assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/nowhere/metrics.jsonl", path)])
def test_metrics_that_cannot_be_written_are_named(tmp_path, make):
  make(tmp_path / "metrics.jsonl")
  with pytest.raises(UserError, match=r"metrics\.jsonl"):
    metrics.MetricWriter(tmp_path, start_step=0)


def test_a_row_that_does_not_fit_is_named_and_leaves_no_part(tmp_path):
  writer = metrics.MetricWriter(tmp_path, start_step=0)
  writer.write(10, **{"train/loss": 1.0})
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (200, limit[1]))
  try:
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: .*ulimit -f"):
      writer.write(20, **{f"x{i}": 1.0 for i in range(100)})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  assert (tmp_path / "metrics.jsonl").read_bytes() == _GOOD


def test_curves(tmp_path, here):
  rows = [{"step": s, "train/loss": 2 / s, "train/top1": 0.1, "train/learning_rate": 1e-3} for s in (1, 2, 3)]
  rows.append({"step": 3, "val/loss": 0.5, "val/top1": 0.9, "val/top5": 1.0})
  assert curves.draw(tmp_path) is None
  code, output = here("-m", "mlpvision.reporting.curves", str(tmp_path))
  assert code == 1
  assert "no metrics.jsonl" in output
  (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  assert here("-m", "mlpvision.reporting.curves", str(tmp_path)) == (0, f"{tmp_path}/curves.png\n")
  with Image.open(tmp_path / "curves.png") as picture:
    assert picture.width > 1000
    assert len(picture.convert("RGB").getcolors(2**24)) > 50


@pytest.mark.parametrize(
  ("names", "headline"),
  [
    (["calibration/ece", "val/top1", "val/loss", "val/images"], "top1"),
    (["val/miou", "val/images", "val/ema_miou"], "miou"),
    (["train/top1"], "top1"),
  ],
)
def test_curves_show_the_headline_of_the_task(names, headline):
  panels = curves._panels([{"step": 1, "train/loss": 1.0}, {"step": 2, **dict.fromkeys(names, 0.5)}])
  assert list(panels) == ["loss", headline, "learning_rate"]
  assert {f"val/{headline}", f"val/ema_{headline}"} < panels[headline].keys()


def test_parameter_table():
  import numpy as np

  block = {"kernel": np.zeros((3, 4))}
  text = overview.parameters({"block_0": block, "block_1": block, "head": {"bias": np.zeros(5)}})
  assert [line.split() for line in text.splitlines()] == [
    ["2", "x", "block_0", "24"],
    ["head", "5"],
    ["parameters", "29"],
  ]
