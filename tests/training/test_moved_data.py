"""A run whose images were moved continues; with other images it is refused."""

import shutil

import numpy as np
from PIL import Image
import pytest

from mlpvision.errors import UserError
from mlpvision.training import loop


@pytest.mark.slow
def test_a_run_follows_its_images(small_config, tmp_path):
  rng = np.random.default_rng(0)
  for name in ("roof", "flower"):
    (tmp_path / "before" / name).mkdir(parents=True)
    for i in range(8):
      pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(tmp_path / "before" / name / f"{i}.png")
  config, workdir = small_config, tmp_path / "run"
  config.data.update(name=f"folder:{tmp_path}/before", train_split="train", eval_split="train", batch_size=8)
  config.duration, config.optim.schedule.warmup = "2 steps", "0 steps"
  loop.train_and_evaluate(config, workdir)

  (tmp_path / "before").rename(tmp_path / "after")
  config.data.name = f"folder:{tmp_path}/after/"
  assert loop.train_and_evaluate(config, workdir).step == 2
  shutil.copy(tmp_path / "after" / "roof" / "1.png", tmp_path / "after" / "roof" / "another.png")
  with pytest.raises(UserError, match=rf"(?s){workdir} holds a run on other images.*before"):
    loop.train_and_evaluate(config, workdir)
