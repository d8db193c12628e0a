"""CycleMLP-B1 on ImageNet-1K from scratch (arXiv 2107.10224; README of ShoufaChen/CycleMLP).

  python train.py --config=configs/cyclemlp_b1.py --workdir=gs://BUCKET/cyclemlp_b1

Published: 78.9 % top-1, trained on 8 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """10 blocks in four stages; DeiT's recipe."""
  config = default.get_config()
  recipes.deit(config)
  config.model.name = "cyclemlp_b1"
  return config
