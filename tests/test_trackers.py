"""W&B and MLflow through their own libraries, without a network: what they have written is read back."""

import json
import struct
import sys

import numpy as np
import pytest

from mlpvision import config as config_lib
from mlpvision.errors import UserError
from mlpvision.reporting import metrics, trackers

_BOTH = ("wandb", "mlflow")


@pytest.fixture
def store(tmp_path, monkeypatch):
  """MLflow's client of a store in files, which is made in no time; W&B is offline."""
  pytest.importorskip("wandb")
  mlflow = pytest.importorskip("mlflow")
  pytest.importorskip("alembic")
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_SILENT", "true")
  monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
  return mlflow.MlflowClient()


def _records(path):
  """The records of a .wandb file: LevelDB's log, after a header of 7 bytes."""
  from wandb.proto import wandb_internal_pb2

  data, at, record = path.read_bytes(), 7, b""
  while at + 7 <= len(data):
    left = 2**15 - at % 2**15
    if left < 7:
      at += left
      continue
    length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
    record += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # whole, or the last part
      yield wandb_internal_pb2.Record.FromString(record)
      record = b""


def _of_wandb(workdir):
  """[(id, config, {step: {name: value}}, exit code or None, whether preempted) of each file] in order."""
  found = []
  for path in sorted(workdir.glob("wandb/offline-run-*/*.wandb")):
    run_id, config, rows, code, preempted = None, {}, {}, None, False
    for record in _records(path):
      kind = record.WhichOneof("record_type")
      if kind == "run":
        run_id = record.run.run_id
        config = {item.key: json.loads(item.value_json) for item in record.run.config.update if item.key != "_wandb"}
      elif kind == "history":
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        rows[items["_step"]] = {name: value for name, value in items.items() if not name.startswith("_")}
      elif kind == "exit":
        code = record.exit.exit_code
      preempted |= kind == "preempting"
    found.append((run_id, config, rows, code, preempted))
  return found


def _of_mlflow(store):
  """(the only run, {name: [(step, value), ...]})."""
  (run,) = store.search_runs([experiment.experiment_id for experiment in store.search_experiments()])
  histories = {name: store.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
  return run, {name: sorted((m.step, m.value) for m in history) for name, history in histories.items()}


@pytest.mark.slow
def test_a_run_is_tracked(tmp_path, store, small_config):
  from mlpvision.training import loop

  small_config.data.update(train_split="train[:160]", eval_split="test[:50]")
  small_config.update(duration="2 epochs", log_every="2 steps")
  small_config.reporting.writers = ("tensorboard", *_BOTH)
  workdir = tmp_path / "my_run"
  assert loop.train_and_evaluate(small_config, workdir).finished
  expected = {}
  for row in metrics.read(workdir):
    for name, value in row.items():
      if name != "step":
        expected.setdefault(name, {})[row["step"]] = value
  assert {"train/loss", "val/top1", "perf/data_wait"} <= expected.keys()
  pictures = {"samples", "confusion", "curves"}

  ((_, config, rows, code, _),) = _of_wandb(workdir)
  assert code == 0
  assert config == config_lib.to_json(small_config)
  assert {name: {step: row[name] for step, row in rows.items() if name in row} for name in expected} == expected
  others = {name for row in rows.values() for name in row} - expected.keys()
  assert {name.partition("/")[0] for name in others} == pictures
  assert len(list(workdir.glob("wandb/offline-run-*/files/media/images/*.png"))) == 3

  run, histories = _of_mlflow(store)
  assert (run.info.status, run.info.run_name) == ("FINISHED", "my_run")
  assert run.data.params["optim.schedule.warmup"] == small_config.optim.schedule.warmup
  assert histories == {name: sorted(values.items()) for name, values in expected.items()}
  assert {file.path for file in store.list_artifacts(run.info.run_id)} == {f"{name}.png" for name in pictures}


def test_a_resumed_run_continues_without_doubled_steps(tmp_path, store):
  def write(writer, *steps):
    for step in steps:
      writer.write(step, **{"train/loss": 1 / step})
      writer.write(step, **{"val/top1": step / 100})

  workdir = tmp_path / "run"
  workdir.mkdir()
  with pytest.raises(ZeroDivisionError), metrics.MetricWriter(workdir, 0, _BOTH, {"seed": 3}) as writer:
    write(writer, 10, 20, 30, 0)
  assert _of_mlflow(store)[0].info.status == "FAILED"
  with metrics.MetricWriter(workdir, 20, _BOTH, {"seed": 3}) as writer:  # the last checkpoint
    write(writer, 30, 40)
    writer.close(finished=False)
  assert _of_mlflow(store)[0].info.status == "KILLED"
  with metrics.MetricWriter(workdir, 40, _BOTH, {"seed": 3}) as writer:
    write(writer, 50)
    writer.close()

  steps = [10, 20, 30, 40, 50]
  files = _of_wandb(workdir)
  assert len({run_id for run_id, *_ in files}) == 1
  assert [(code, preempted) for *_, code, preempted in files] == [(1, False), (1, True), (0, False)]
  rows = [item for _, _, found, *_ in files for item in found.items()]
  assert rows == [(step, {"train/loss": 1 / step, "val/top1": step / 100}) for step in steps]
  run, histories = _of_mlflow(store)
  assert run.info.status == "FINISHED"
  assert run.data.params == {"seed": "3"}
  assert histories["train/loss"] == [(step, 1 / step) for step in steps]
  assert histories["val/top1"] == [(step, step / 100) for step in steps]


def test_a_tracker_that_fails_is_said_once(tmp_path, store, caplog):
  writer = metrics.MetricWriter(tmp_path, 0, ("mlflow",), {})
  runs = tmp_path / "mlruns"
  runs.rename(tmp_path / "gone")
  runs.write_text("no directory")
  for step in (10, 20, 30):
    writer.write(step, **{"train/loss": 0.5})
  writer.close()
  assert caplog.text.count("mlflow FAILS") == 1
  assert [row["step"] for row in metrics.read(tmp_path)] == [10, 20, 30]
  # A resumed run trains without it, too.
  metrics.MetricWriter(tmp_path, 30, ("mlflow",), {}).close()
  assert "mlflow CANNOT CONTINUE its run" in caplog.text


def test_what_was_not_sent_is_sent_later(tmp_path, store):
  writer = metrics.MetricWriter(tmp_path, 0, ("mlflow",), {})
  runs = tmp_path / "mlruns"
  runs.rename(tmp_path / "gone")
  writer.write(10, **{"train/loss": 0.5})
  (tmp_path / "gone").rename(runs)
  writer.write(20, **{"train/loss": 0.25})
  writer.close()
  assert _of_mlflow(store)[1] == {"train/loss": [(10, 0.5), (20, 0.25)]}


def test_a_new_run_that_cannot_start_is_refused(tmp_path, store, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'file'}")
  with pytest.raises(UserError, match=r"mlflow cannot start a run: .*\n.*reporting\.writers"):
    metrics.MetricWriter(tmp_path, 0, ("mlflow",), {})
  (tmp_path / trackers.FILE).write_text("[")
  with pytest.raises(UserError, match=r"trackers\.json is damaged"):
    metrics.MetricWriter(tmp_path, 0, ("mlflow",), {})


@pytest.mark.parametrize("name", _BOTH)
def test_a_missing_library_is_named_before_anything_else(tmp_path, small_config, monkeypatch, name):
  from mlpvision.training import loop

  monkeypatch.setitem(sys.modules, name, None)
  small_config.reporting.writers = (name,)
  with pytest.raises(UserError, match=rf"pip install 'mlpvision\[{name}\]'"):
    loop.train_and_evaluate(small_config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_without_writers_there_is_metrics_jsonl_alone(tmp_path):
  with metrics.MetricWriter(tmp_path, 0, ()) as writer:
    writer.write(1, x=np.float64(2.0))
    writer.close()
  assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
