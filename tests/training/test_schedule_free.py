"""An optimizer that trains other parameters than the ones to evaluate."""

import jax
import numpy as np
import pytest

from mlpvision.checkpoints import load_variables
from mlpvision.evaluate import run as run_lib
from mlpvision.training import loop


def test_a_checkpoint_gives_the_parameters_that_were_evaluated(small_config, tmp_path):
  small_config.optim.update(name="schedule_free_adamw", weight_decay=0.01)
  small_config.optim.schedule.name = "constant"
  small_config.data.eval_split = "test[:100]"
  small_config.duration = "10 steps"
  result = loop.train_and_evaluate(small_config, tmp_path)
  params = load_variables(tmp_path)[0]["params"]
  trained = jax.device_get(result.state.params)
  assert not np.array_equal(params["head"]["kernel"], trained["head"]["kernel"])
  found = run_lib.evaluate(tmp_path)
  assert found["loss"] == pytest.approx(result.metrics["val/loss"], rel=1e-4)
  again = loop.train_and_evaluate(small_config, tmp_path)  # restores what is trained
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(again.state.params), trained)
