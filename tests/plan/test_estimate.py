"""Arithmetic by hand."""

import dataclasses

import pytest

from mlpvision.plan import chips, plans, program

_CHIP = dataclasses.replace(chips.CHIPS["v5e"], tflops=100, bandwidth=1000, clock=1.0)
_FOUND = dict(
  cycles=50_000_000, unknown_cycles=0, flops=1e12, flops_factor=2.0, bytes=5e9, bytes_factor=3.0, hbm_bytes=30e9
)
_RUN = program.Program(
  "v5e:4x4", dict(data=4, fsdp=4, model=1), batch_size=160, total_steps=72_000, parameters=1, macs=1_000_000_000,
  state_bytes=1, found=_FOUND,
)  # fmt: skip


def test_by_hand():
  found = plans.estimate(_RUN, _CHIP)
  assert found.seconds == pytest.approx(0.05)  # 50 M cycles at 1 GHz
  assert found.images_per_second == pytest.approx(3200)
  assert found.hours == pytest.approx(1)  # 72,000 x 0.05 s
  assert found.model_flops == pytest.approx(6e10)  # 10 images x 1 G MACs x 2 x 3
  assert found.mfu == pytest.approx(0.012)  # 6e10 of 5e12 in 0.05 s at 100 TFLOP/s
  assert (found.flops, found.bytes) == (2e12, 15e9)
  assert (found.compute_seconds, found.memory_seconds) == pytest.approx((0.02, 0.03))
  assert found.least_hours == pytest.approx(0.6)  # 72,000 x 0.03 s
  assert not found.refused


def test_without_a_clock_there_is_no_time():
  found = plans.estimate(_RUN, dataclasses.replace(_CHIP, clock=None))
  assert found.seconds is found.images_per_second is found.mfu is found.hours is None
  assert "clock" in found.refused
  assert found.least_hours == pytest.approx(0.6)


@pytest.mark.parametrize(("unknown", "is_refused"), [(2_500_000, False), (2_500_001, True)])
def test_too_much_in_loops_of_unknown_length_is_refused(unknown, is_refused):
  found = plans.estimate(dataclasses.replace(_RUN, found=_FOUND | {"unknown_cycles": unknown}), _CHIP)
  assert bool(found.refused) is is_refused
  assert (found.seconds is None) is is_refused


@pytest.mark.parametrize(("name", "mxus"), [("v4", 8), ("v5e", 4), ("v5p", 8)])
def test_clocks_follow_from_the_published_peaks(name, mxus):
  chip = chips.CHIPS[name]
  assert chip.clock == pytest.approx(chip.tflops * 1e12 / (mxus * 128 * 128 * 2) / 1e9, rel=3e-3)
