"""All ratios in one file, and what is said to have moved."""

import json

from conftest import SMALL
import pytest

from mlpvision.benchmark import measure_all


def _found(ratios, **changes):
  return {"date": "2026-11-26", "machine": "cpu; 2 CPU cores", "versions": {"jax": "1"}, "ratios": ratios, **changes}


def test_ratios_of_each_round():
  facts = {"platform": "cpu"}
  ours = {"forward": [(2.0, 9.0), (4.0, 9.0)], "forward products": [(1.0, 9.0), (3.0, 9.0)]}
  ours |= {"train": ours["forward"], "train products": ours["forward products"]}
  peer = {"forward": [(4.0, 1.0), (6.0, 1.0)]}
  assert measure_all.of_step({"ours": {"facts": facts, "rounds": ours}, "a peer": {"facts": {}, "rounds": peer}}) == {
    "forward: its products alone / ours": [0.5, 0.75],
    "forward: a peer / ours": [2.0, 1.5],
    "train: its products alone / ours": [0.5, 0.75],
  }
  turns = [{"images": 30, "wall": 3.0, "cpu": 5.0}, {"images": 30, "wall": 2.0, "cpu": 6.0}]
  slow = [{"images": 15, "wall": 3.0, "cpu": 5.0}, {"images": 45, "wall": 3.0, "cpu": 3.0}]
  assert measure_all.of_loader({"loaders": {"ours": turns, "ours, 30 ms": slow, "peer": slow}}) == {
    "images/s: 30 ms / without": [0.5, 1.0],
    "images per CPU-second: 30 ms / without": [0.5, 3.0],
    "images per CPU-second: ours / peer": [2.0, 1 / 3],
  }
  assert measure_all.of_training({"real": slow, "synthetic": turns}) == {"images/s: loaded / on the device": [0.5, 1.0]}


def test_what_moved_lies_beyond_all_rounds():
  old = _found({"a": [1.0, 1.2, 1.1], "b": [1.0, 1.2, 1.1], "c": [2.0, 2.1, 2.2], "gone": [1.0]})
  new = _found({"a": [1.19, 1.3, 1.4], "b": [1.21, 1.3, 1.4], "c": [1.0, 1.1, 1.2], "new": [1.0]}, machine="gpu")
  text = measure_all.compare(old, new)
  assert [line.split()[0] for line in text.splitlines() if line.endswith("moved")] == ["b", "c"]
  assert "+18.2%" in text
  assert "-47.6%" in text
  assert "another machine: cpu; 2 CPU cores then, gpu now" in text
  assert "measured then alone" in text
  assert "measured now alone" in text
  assert text.endswith("2 moved beyond noise; by chance alone, 0.3 would")  # three times 2 / 20
  assert " moved" not in measure_all.compare(old, old).rpartition("\n")[0]


@pytest.mark.parametrize("content", ["", "[]", '{"ratios": {"a": []}}', '{"ours": {}}', None])
def test_another_file_is_not_compared(here, tmp_path, content):
  path = tmp_path / "old.json"
  if content is not None:
    path.write_text(content)
  code, output = here("-m", "mlpvision.benchmark", "all", f"--compare={path}")
  assert code == 2
  assert str(path) in output
  code, output = here("-m", "mlpvision.benchmark", "step", *SMALL, f"--compare={path}")
  assert (code, output) == (2, "error: --compare is for `all`\n")


@pytest.mark.slow
@pytest.mark.soak
def test_all_is_measured_and_compared(command, tmp_path):
  old, new = tmp_path / "old.json", tmp_path / "new.json"
  name = "training quickstart, images/s: loaded / on the device"
  old.write_text(json.dumps(_found({name: [1e9]})))
  small = ("--batch_size=4", "--rounds=1", "--seconds=0.1", "--synthetic=40", f"--json={new}", f"--compare={old}")
  code, output = command("-m", "mlpvision.benchmark", "all", *SMALL, *small)
  assert code == 0, output
  found = json.loads(new.read_text())
  kinds = {"step of quickstart", "loader of quickstart", "training quickstart"}
  assert {ratio.partition(",")[0] for ratio in found["ratios"]} == kinds
  assert all(len(values) == 1 and values[0] > 0 for values in found["ratios"].values())
  assert found["machine"] in output
  assert "1 moved beyond noise; by chance alone, 1 would" in output
