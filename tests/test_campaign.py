"""A part of the fault campaign; `python tests/campaign.py` does all of it, many times and on longer runs."""

import campaign
import pytest


@pytest.mark.slow
@pytest.mark.soak
def test_nothing_is_lost(tmp_path):
  kinds = ["kill in a save", "read-only", "truncated file", "disk full", "one of two killed", "hosts exchanged"]
  # The seed that puts them into two runs: every further start of a process takes ten seconds.
  faults = campaign.campaign(tmp_path, kinds, seed=3, jobs=2, steps=60)
  assert {fault.kind for fault in faults} >= set(kinds) - {"disk full"}  # for which one has to be root
