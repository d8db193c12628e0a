"""Half a minute of fuzzing; `python tests/fuzzing.py` does it for as long as one likes."""

import fuzzing
import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "examples"), [("weight files", 350), ("images", 400), ("archives", 250), ("metrics", 150)]
)
def test_a_changed_file_is_read_or_refused(tmp_path, kind, examples):
  counts = fuzzing.run(kind, tmp_path, examples)
  assert counts["read"] > examples // 20
  assert kind == "metrics" or counts["refused"] > examples // 20
