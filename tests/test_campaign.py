"""A part of the fault campaign; `python tests/campaign.py` does all of it, many times."""

import campaign
import pytest


@pytest.mark.slow
def test_nothing_is_lost(tmp_path):
  kinds = ["kill", "kill in a save", "read-only", "truncated file", "disk full", "one of two killed", "hosts exchanged"]
  faults = campaign.campaign(tmp_path, kinds, seed=0)
  assert {fault.kind for fault in faults} >= set(kinds) - {"disk full", "kill"}  # needs root; may come before step 1
