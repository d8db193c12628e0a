"""S2-MLPv2-Small/7 on ImageNet-1K from scratch (arXiv 2108.01072, Table 2).

  python train.py --config=configs/s2mlpv2_small7.py --workdir=gs://BUCKET/s2mlpv2_small7

Published: 82.0 % top-1, trained on 4 A100. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """4 blocks of 192 and 14 of 384 channels; S2-MLPv2's recipe."""
  config = default.get_config()
  recipes.s2mlpv2(config)
  config.model.name = "s2mlpv2_small7"
  return config
