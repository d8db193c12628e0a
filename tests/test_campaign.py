"""The fault campaign, with one interruption of each kind; `python tests/campaign.py` does many."""

import campaign
import pytest


@pytest.mark.slow
def test_nothing_is_lost(tmp_path):
  faults = campaign.campaign(tmp_path, len(campaign.KINDS), seed=0)
  assert {fault.kind for fault in faults} >= set(campaign.KINDS) - {"disk full"}  # for which one has to be root
