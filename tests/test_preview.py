"""The sheet of training images."""

import numpy as np
from PIL import Image


def test_the_sheet_is_drawn(here, tmp_path):
  path = tmp_path / "sheet.png"
  flags = (
    "--config.augment.mixup=0.8",
    "--config.augment.randaugment=rand-m9-mstd0.5-inc1",
    "--config.augment.repeats=2",
  )
  run = ("-m", "mlpvision.preview", "--config=configs/quickstart.py", f"--output={path}")
  code, output = here(*run, *flags, "--images=10")
  assert code == 0, output
  sheet = np.asarray(Image.open(path).convert("RGB"))
  dark = (sheet.max(axis=2) < 40).mean()
  assert sheet.shape[1] > sheet.shape[0] > 300
  assert 0.2 < dark < 0.9  # digits on black, on a white page
  code, output = here(*run, "--images=7")
  assert code == 2
  assert "must be even" in output
