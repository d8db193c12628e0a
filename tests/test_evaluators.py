"""Evaluators from the config: which run, when, on what, and what the best checkpoint is chosen by."""

import csv
import json

import numpy as np
import pytest

from mlpvision.errors import UserError
from mlpvision.evaluate import evaluators, run as run_lib
from mlpvision.training import loop


@pytest.fixture
def config(small_config):
  small_config.data.update(eval_split="test[:100]", train_split="train[:500]")
  small_config.update(duration="12 steps", ema_decay=0.5)
  small_config.eval.every = "6 steps"
  small_config.evals.calibration.every = "4 steps"
  small_config.evals.fewshot.update(every="", shots=(5,), split="test[:60]")
  small_config.checkpoint.update(best="calibration/ece", every="4 steps", keep=1)
  return small_config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp("run")


def _rows(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_each_runs_when_it_is_due_on_both_sets_of_parameters(config, workdir):
  result = loop.train_and_evaluate(config, workdir)
  when = {
    name: [row["step"] for row in _rows(workdir) if name in row]
    for name in ("val/top1", "val/ema_top1", "calibration/ece", "calibration/ema_ece", "fewshot/ema_top1_5shot")
  }
  assert when == {
    "val/top1": [6, 12],
    "val/ema_top1": [6, 12],
    "calibration/ece": [4, 8, 12],
    "calibration/ema_ece": [4, 8, 12],
    "fewshot/ema_top1_5shot": [6, 12],
  }
  assert set(evaluators.metrics(config)) == {name for name in result.metrics if not name.endswith("images")}
  # The smallest calibration error is the best; a run without a result of that evaluator has no say.
  found = {row["step"]: row["calibration/ece"] for row in _rows(workdir) if "calibration/ece" in row}
  best = min(found, key=found.get)
  kept = {int(path.name) for path in (workdir / "checkpoints").iterdir()}
  assert kept == {best, 12}


def test_the_command_takes_the_same_names(config, workdir, here):
  if not (workdir / "metrics.jsonl").exists():
    loop.train_and_evaluate(config, workdir)
  last = {}
  for row in _rows(workdir):
    last |= row
  flags = (f"--weights={workdir}/checkpoints/12", "--evals=accuracy,calibration,fewshot")
  code, output = here("-m", "mlpvision.evaluate", *flags, "--json")
  assert code == 0, output
  (found,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
  assert found["top1"] == pytest.approx(last["val/top1"], abs=0.011)
  assert found["ece"] == pytest.approx(last["calibration/ece"], abs=1e-3)
  assert found["top1_5shot"] == pytest.approx(last["fewshot/top1_5shot"], abs=0.02)
  code, output = here("-m", "mlpvision.evaluate", *flags, "--ema")
  assert code == 0, output
  assert f"ece {last['calibration/ema_ece']:.2%}"[:7] in output
  assert "28 pixels, crop ratio 1, bicubic, mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5)" in output
  files = f"--csv={workdir}/images.csv", f"--json={workdir}/results.json"
  code, output = here("-m", "mlpvision.evaluate", flags[0], *files)
  assert code == 0, output
  written, rows = json.loads((workdir / "results.json").read_text()), [*csv.DictReader(open(f"{workdir}/images.csv"))]
  assert written["top1"] == found["top1"] == np.mean([row["label"] == row["prediction"] for row in rows])
  assert f"top-1 {found['top1']:.4%}" in output
  assert rows == [{name: str(value) for name, value in row.items()} for row in written["per_image"]]
  with pytest.raises(UserError, match="results of every image are of classifiers, with the evaluator accuracy"):
    run_lib.evaluate(workdir, evals=("calibration",), per_image=True)
  with pytest.raises(UserError, match="fewshots.*accuracy"):
    run_lib.evaluate(workdir, evals=("fewshots",))


@pytest.mark.parametrize(
  ("change", "facts"),
  [
    (lambda c: c.checkpoint.update(best="val/top2"), "checkpoint.best='val/top2'.*val/ema_top1.*fewshot/top1_5shot"),
    (lambda c: c.evals.calibration.update(every="never"), "checkpoint.best='calibration/ece'.*val/top1"),
    (lambda c: c.evals.val.update(type="acuracy"), "evals.val.type='acuracy'.*accuracy, calibration, fewshot"),
    (lambda c: c.evals.val.update(every="often"), "evals.val.every.*'often'"),
    (lambda c: c.eval.update(every="often"), "eval.every.*'often'"),
  ],
)
def test_mistakes_are_refused_before_anything_is_written(config, tmp_path, change, facts):
  change(config)
  with pytest.raises(UserError, match=facts):
    loop.train_and_evaluate(config, tmp_path / "run")
  assert not list((tmp_path / "run").glob("checkpoints/*"))
