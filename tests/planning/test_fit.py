"""Which changes are tried, in which order, where a step does not fit."""

import pytest

from mlpvision.planning import fit, program
from mlpvision.training import setup

_SAYS = (
  "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries ({}G) exceeds available"
  " HBM (15.75G)."
)
_GIB = 2**30


@pytest.fixture
def first(small_config):
  """A function from (GiB needed, GiB of state) to a Program that is out of memory, on eight devices."""
  small_config.data.batch_size = 8 * 64
  parts = setup.make_parts(small_config, num_images=4000, num_classes=10)

  def make(needed, state):
    return program.Program("v5e:2x4", parts, int(state * _GIB), {"out_of_memory": _SAYS.format(needed)})

  return make


def test_the_compilers_words_are_understood():
  assert program.needed_bytes(_SAYS.format(20.5)) == (20.5 * _GIB, 15.75 * _GIB)
  says = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.10G of"
  says += " 15.75G hbm."
  assert program.needed_bytes(says) == (17.1 * _GIB, 15.75 * _GIB)
  assert program.needed_bytes("something else") is None


def test_sharding_comes_first_where_the_state_is_what_is_too_large(small_config, first):
  assert fit.variants(small_config, first(18, 10))[0] == {"mesh.fsdp": 8}


def test_parts_come_first_where_sharding_cannot_save_enough(small_config, first):
  found = fit.variants(small_config, first(20, 1))
  # 64 images a device: two parts may do, remat is next, a smaller batch the last resort.
  assert found[:5] == [
    {"accumulation_steps": 2},
    {"accumulation_steps": 4},
    {"accumulation_steps": 8},
    {"model.remat": True},
    {"model.remat": True, "accumulation_steps": 2},
  ]
  assert found[-1] == {"mesh.fsdp": 8, "model.remat": True, "data.batch_size": 16}


def test_parts_that_are_too_large_for_sure_are_left_out(small_config, first):
  assert fit.variants(small_config, first(110, 1))[0] == {"accumulation_steps": 8}


def test_what_the_config_has_already_is_not_tried(small_config, first):
  program_ = first(20, 1)
  small_config.model.remat = True
  small_config.mesh.fsdp = 8
  found = fit.variants(small_config, program_)
  assert all("model.remat" not in changes for changes in found)
  assert {"mesh.fsdp": 8} not in found


def test_the_first_that_fits_ends_the_search(small_config, first):
  program_, said, tried = first(20, 1), [], []

  def compile_variant(config):
    tried.append(config.accumulation_steps)
    return program.Program("v5e:2x4", program_.parts, 0, program_.found if len(tried) < 2 else {"memory": {}})

  found, changes = fit.search(small_config, program_, compile_variant, said.append)
  assert (changes, found.is_out_of_memory, tried) == ({"accumulation_steps": 4}, False, [2, 4])
  assert said == ["  --config.accumulation_steps=2: out of memory", "  --config.accumulation_steps=4: fits"]
  assert small_config.accumulation_steps == 1


def test_flags():
  assert fit.as_flags({"mesh.fsdp": 16, "model.remat": True}) == "--config.mesh.fsdp=16 --config.model.remat=true"
