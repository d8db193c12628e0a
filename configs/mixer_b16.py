"""Mixer-B/16 on ImageNet-1K from scratch (arXiv 2105.01601, Table 3).

  python train.py --config=configs/mixer_b16.py --workdir=gs://BUCKET/mixer_b16

Published: 76.44 % top-1; big_vision reports 76.3 % in 2 h 11 min on a TPU v3-128. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """12 blocks of 768 channels; the paper's own recipe."""
  config = default.get_config()
  recipes.mixer(config)
  config.model.name = "mixer_b16"
  config.model.remat = "preactivations"  # less memory, and faster on TPU: docs/performance.md
  return config
