"""A trace of some steps, as xprof reads it; and no transfer that nobody asked for."""

import jax
import pytest

from mlpvision import sharding
from mlpvision.training import loop


def _events(workdir):
  """Names of all events of the trace, and the numbers of its steps."""
  (path,) = (workdir / "profile").rglob("*.xplane.pb")
  planes = jax.profiler.ProfileData.from_file(str(path)).planes
  events = [event for plane in planes for line in plane.lines for event in line.events]
  stats = [dict(event.stats) for event in events if event.name == "train"]
  return {event.name for event in events}, {int(found["step_num"]) for found in stats if "step_num" in found}


def test_a_trace_has_the_steps_and_the_parts_of_the_loop(small_config, tmp_path):
  small_config.update(duration="8 steps", profile="3:5", log_every="4 steps")
  small_config.data.eval_split = "test[:40]"
  small_config.eval.every = "4 steps"
  loop.train_and_evaluate(small_config, tmp_path)
  names, steps = _events(tmp_path)
  assert steps == {3, 4, 5}
  assert {"wait for data", "log", "evaluate"} <= names


def test_implicit_transfers_are_refused_around_the_step(small_config, tmp_path, monkeypatch):
  """A step that is given NumPy arrays, which JAX would silently copy to the device, fails."""
  monkeypatch.setattr(sharding, "put_batches", lambda batches, mesh: batches)
  small_config.duration = "8 steps"
  with pytest.raises(Exception, match="(?i)disallowed host-to-device transfer"):
    loop.train_and_evaluate(small_config, tmp_path)
