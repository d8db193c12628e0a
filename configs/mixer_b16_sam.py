"""Mixer-B/16 with sharpness-aware minimization, on ImageNet-1K from scratch (arXiv 2106.01548, Table 2).

  python train.py --config=configs/mixer_b16_sam.py --workdir=gs://BUCKET/mixer_b16_sam

Published: 77.4 % top-1, against 66.4 % by the same recipe without SAM. Not reproduced here yet. A step takes two
forward and backward passes.
"""

from configs import default, recipes


def get_config():
  """12 blocks of 768 channels; random crops and flips alone."""
  config = default.get_config()
  recipes.mixer_sam(config)
  config.model.name = "mixer_b16"
  config.model.remat = "preactivations"  # less memory, and faster on TPU: docs/performance.md
  return config
