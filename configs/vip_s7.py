"""ViP-Small/7 on ImageNet-1K from scratch (arXiv 2106.12368; README of houqb/VisionPermutator).

  python train.py --config=configs/vip_s7.py --workdir=gs://BUCKET/vip_s7

Published: 81.52 % top-1 in the authors' log. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """18 blocks of 192 and 384 channels; ViP's recipe, with drop path 0.1 (0.2 for M7, 0.3 for L7)."""
  config = default.get_config()
  recipes.vip(config)
  config.model.name = "vip_s7"
  return config
