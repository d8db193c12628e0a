"""Saving by the clock."""

import time

from mlpvision.config import to_seconds
from mlpvision.training.stopping import SaveClock


def test_the_clock_is_due_once_per_interval():
  clock = SaveClock(0.2)
  due = []
  for _ in range(10):
    time.sleep(0.05)
    due.append(clock.is_due())
  assert 1 <= sum(due) <= 3
  assert not due[0]
  assert not any(SaveClock(None).is_due() for _ in range(3))


def test_minutes_and_hours():
  assert to_seconds("10 minutes") == 600
  assert to_seconds("1.5 hours") == 5400
  assert to_seconds("1 minute") == 60
  assert to_seconds("10 steps") is None
  assert to_seconds("minutes") is None
