"""What a plan says: the figures, and of each line where it is from."""

import dataclasses
import pathlib
import re

from mlpvision.plan import chips, counts, hlo, plans, program, report

_HLO = (pathlib.Path(__file__).parent / "two_loops.hlo").read_text()
_MIB = 2**20
_FOUND = {
  "versions": ["jax 0.10.2", "libtpu 0.0.42.1"],
  "memory": dict(
    argument=200 * _MIB, output=100 * _MIB, alias=100 * _MIB, temp=1024 * _MIB, generated_code=0, peak=900 * _MIB
  ),
  "flops": 1e9,
  "bytes": 2e9,
  **dataclasses.asdict(counts.count(hlo.parse(_HLO))),
}
_SAYS = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required is too much.\nProgram hbm requirement"


def _plan(chip="v5e", *, fits=True, changes=None):
  """A Plan: of which chip, whether it fits at once, and the changes that make it fit."""
  run = dict(mesh=dict(data=8, fsdp=1, model=1), batch_size=160, total_steps=500, parameters=1000, macs=1_000_000)
  fitting = program.Program(f"{chip}:2x4", **run, state_bytes=3 * _MIB, found=_FOUND)
  short = dataclasses.replace(fitting, found={"versions": _FOUND["versions"], "out_of_memory": _SAYS})
  figures = plans.estimate(fitting, chips.CHIPS[chip]) if fits or changes else None
  fitted = (fitting, changes) if changes else None
  return plans.Plan("quickstart", chips.CHIPS[chip], fitting if fits else short, fitted, figures)


def test_every_line_says_where_it_is_from():
  text = report.text(_plan(), num_kernels=1)
  lines = text.splitlines()
  assert lines[0] == "quickstart on v5e:2x4: 8 chips, mesh data=8, 160 images a step; all figures per chip"
  for line in lines[1:-1]:
    assert re.search(r"\s(arithmetic|compiler|estimate)$", line), line
  for expected in (
    r"allocated HBM +1\.2 GiB of 15\.75 GiB",  # 200 + 1024 MiB: the output takes the argument's place
    r"work +3 GFLOP +estimate",  # 1 GFLOP, all of it in loops of three passes
    r"all-reduce +1 with 0\.125 MiB",
    r"loop +3 x 6,977 cycles",
    r"cycles +35,664",
    r"step +0\.0238 ms at 1\.5 GHz",
    r"recipe +3\.3e-06 hours for 500 steps of 160 images",
  ):
    assert re.search(expected, text), f"{expected} not in\n{text}"
  assert re.search(r"20,931 cycles +58\.7% +3 x fusion +jvp\(\)/while/body/closed_call/dot_general$", lines[-1])


def test_a_chip_without_a_clock_gets_no_time():
  text = report.text(_plan("v6e"))
  assert "no estimate: the clock of v6e" in text
  assert "recipe                at least" in text
  assert "MFU" not in text


def test_out_of_memory_is_told_in_the_compilers_words_with_what_helps():
  text = report.text(_plan(fits=False))
  assert _SAYS.splitlines()[0] in text
  for flag in ("mesh.fsdp", "accumulation_steps", "model.remat", "data.batch_size"):
    assert f"--config.{flag}=" in text
  text = report.text(_plan(fits=False, changes={"accumulation_steps": 4}))
  assert "With --config.accumulation_steps=4 it fits:" in text


def test_the_table_has_a_row_for_each_and_the_compilers_words():
  found = [_plan(), _plan("v6e"), _plan(fits=False), _plan(fits=False, changes={"mesh.fsdp": 8})]
  table = report.table(found)
  lines = table.splitlines()
  assert len({line.count("|") for line in lines[:6]}) == 1
  assert lines[2].startswith("| `quickstart` | v5e:2x4 | 20 | 0.879, 1.2 of 15.75 | 3 | ")
  assert "the clock of v6e" in lines[3]
  assert lines[4].endswith("| – | out of memory |")
  assert "fits with `--config.mesh.fsdp=8`" in lines[5]
  assert table.count(f"`{_SAYS.splitlines()[0]}`") == 2
