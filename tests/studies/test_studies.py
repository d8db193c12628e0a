"""The studies: their grids are the papers', runs are resumed, and the report's arithmetic is right."""

import dataclasses
import json

import pytest

from mlpvision import config as config_lib, models
from mlpvision.errors import UserError
from studies import grids, report, runs

_TINY = grids.Study(
  "A title",
  "a paper, Table 1",
  "s2mlp_wide",
  {},
  (grids.Row("with", dict(directions="four"), 80.0), grids.Row("with out", dict(directions="none"), 50.0)),
)


@pytest.mark.parametrize("name", grids.STUDIES)
def test_every_row_is_a_model(name):
  study = grids.STUDIES[name]
  assert len({row.label for row in study.rows}) == len(study.rows) > 1
  for on_laptop in (True, False):
    for row in study.rows:
      options = {**(study.laptop if on_laptop else {"name": study.config}), **row.model(on_laptop)}
      models.create(options.pop("name"), **options)
  assert set(study.order) <= {row.group for row in study.rows}


def test_runs_are_done_once_and_of_one_config(small_config, tmp_path):
  small_config.duration = small_config.eval.every = "5 steps"
  done = small_config.copy_and_resolve_references()
  done.seed, done.model.directions = 0, "four"
  (tmp_path / "with" / "seed_0").mkdir(parents=True)
  saved = {"top1": 0.25, "config": config_lib.to_json(done)}
  (tmp_path / "with" / "seed_0" / "study.json").write_text(json.dumps(saved))
  results = runs.run(_TINY, small_config, 1, tmp_path, on_laptop=True)
  assert results["with"] == [25.0]
  assert len(results["with out"]) == 1
  path = tmp_path / "with_out" / "seed_0" / "study.json"
  saved = json.loads(path.read_text())
  assert (saved["config"]["seed"], saved["config"]["model"]["directions"]) == (0, "none")
  path.write_text(json.dumps({**saved, "top1": 0.5}))  # which nothing but reading it gives
  again = runs.run(_TINY, small_config, 1, tmp_path, on_laptop=True)
  assert again == {**results, "with out": [50.0]}
  small_config.optim.learning_rate = 0.5
  with pytest.raises(UserError, match=r"optim\.learning_rate: 0\.002 -> 0\.5"):
    runs.run(_TINY, small_config, 1, tmp_path, on_laptop=True)


def test_report(tmp_path):
  results = {"with": [90.0, 92.0], "with out": [60.0, 64.0]}
  path = report.write("tiny", _TINY, results, tmp_path, images="digits", made_by="`a command`, today.")
  text = path.read_text()
  assert "| with | 91.0 ± 1.4 | 80 |" in text
  assert "| with out | 62.0 ± 2.8 | 50 |" in text
  assert "`a command`, today." in text
  assert "1 are ordered as in the paper" in text
  assert json.loads((tmp_path / "tiny.json").read_text())["top1"] == results
  assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
  ("worse", "verdict"),
  [([60.0, 64.0], "As in the paper"), ([95.0, 99.0], "Reversed"), ([90, 93], "Too close")],
)
def test_the_order_of_two_settings(worse, verdict):
  lines = report.order(_TINY, {"with": [90.0, 92.0], "with out": worse})
  assert f"{verdict}:" in lines
  assert sum(line.endswith(":") for line in lines) == 1


def test_equivalent_settings_are_pooled():
  rows = tuple(dataclasses.replace(row, group="one group") for row in _TINY.rows)
  study = dataclasses.replace(_TINY, rows=rows, order=("one group",))
  text = report.markdown("tiny", study, {"with": [90.0], "with out": [60.0]}, images="digits", made_by="")
  assert "| one group | 75.0 ± 21.2 | 65.0 |" in text
