"""PoolFormer-S12 on ImageNet-1K from scratch (arXiv 2111.11418; README of sail-sg/poolformer).

  python train.py --config=configs/poolformer_s12.py --workdir=gs://BUCKET/poolformer_s12

Published: 77.2 % top-1, trained on 8 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """12 blocks in four stages; PoolFormer's recipe, with drop path 0.1 (0.2, 0.3 and 0.4 for S36, M36 and M48)."""
  config = default.get_config()
  recipes.poolformer(config)
  config.model.name = "poolformer_s12"
  return config
