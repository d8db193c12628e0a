"""Which changes are tried, in which order, where a step does not fit."""

import dataclasses

import pytest

from mlpvision.plan import fit, program

_SAYS = (
  "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries ({}G) exceeds available"
  " HBM (15.75G)."
)
_GIB = 2**30


@pytest.fixture
def config(small_config):
  small_config.data.batch_size = 8 * 64
  return small_config


def _first(needed, state):
  """A Program that is out of memory, on eight devices; GiB that it needs, and GiB of state."""
  run = dict(batch_size=8 * 64, total_steps=100, parameters=1, macs=1, state_bytes=int(state * _GIB))
  mesh = dict(data=8, fsdp=1, model=1)
  return program.Program("v5e:2x4", mesh, **run, found={"out_of_memory": _SAYS.format(needed)})


def test_the_compilers_words_are_understood():
  assert program.needed_bytes(_SAYS.format(20.5)) == (20.5 * _GIB, 15.75 * _GIB)
  says = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.10G of"
  says += " 15.75G hbm."
  assert program.needed_bytes(says) == (17.1 * _GIB, 15.75 * _GIB)
  assert program.needed_bytes("something else") is None


def test_sharding_comes_first_where_the_state_is_what_is_too_large(config):
  assert fit.variants(config, _first(18, 10))[0] == {"mesh.fsdp": 8}


def test_parts_come_first_where_sharding_cannot_save_enough(config):
  found = fit.variants(config, _first(20, 1))
  # 64 images a device: two parts may do, remat is next, a smaller batch the last resort.
  assert found[:5] == [
    {"accumulation_steps": 2},
    {"accumulation_steps": 4},
    {"accumulation_steps": 8},
    {"model.remat": "preactivations"},
    {"model.remat": "block"},
  ]
  assert found[5] == {"model.remat": "block", "accumulation_steps": 2}
  assert found[-1] == {"mesh.fsdp": 8, "model.remat": "block", "data.batch_size": 16}


def test_parts_that_are_too_large_for_sure_are_left_out(config):
  assert fit.variants(config, _first(110, 1))[0] == {"accumulation_steps": 8}


def test_what_the_config_has_already_is_not_tried(config):
  config.model.remat = "preactivations"
  assert {"model.remat": "preactivations"} not in fit.variants(config, _first(20, 1))
  config.model.remat = "block"
  first = dataclasses.replace(_first(20, 1), mesh=dict(data=1, fsdp=8, model=1))
  found = fit.variants(config, first)
  assert all("model.remat" not in changes for changes in found)
  assert {"mesh.fsdp": 8} not in found


def test_without_figures_in_the_message_everything_is_tried(config):
  found = fit.variants(config, dataclasses.replace(_first(20, 1), found={"out_of_memory": "RESOURCE_EXHAUSTED"}))
  assert found[:2] == [{"mesh.fsdp": 8}, {"accumulation_steps": 2}]


def test_a_batch_that_the_config_cuts_stays_divisible(config):
  config.accumulation_steps, config.mesh.data = 4, 8
  sizes = [
    changes["data.batch_size"] for changes in fit.variants(config, _first(20, 1)) if "data.batch_size" in changes
  ]
  assert sizes == [256, 128, 64]  # two images for each part of each of eight devices
  assert fit.variants(config, _first(18, 10))[0] == {"mesh.fsdp": 8, "mesh.data": -1}


def test_the_first_that_fits_ends_the_search(config, capsys):
  first, tried = _first(20, 1), []

  def compile_variant(config):
    tried.append(config.accumulation_steps)
    return dataclasses.replace(first, found=first.found if len(tried) < 2 else {"memory": {}})

  found, changes = fit.search(config, first, compile_variant)
  assert (changes, found.is_out_of_memory, tried) == ({"accumulation_steps": 4}, False, [2, 4])
  lines = capsys.readouterr().out.splitlines()
  assert lines == ["  --config.accumulation_steps=2: out of memory", "  --config.accumulation_steps=4: fits"]
  assert config.accumulation_steps == 1


def test_flags():
  assert fit.as_flags({"mesh.fsdp": 16, "model.remat": "block"}) == "--config.mesh.fsdp=16 --config.model.remat=block"
