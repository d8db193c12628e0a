"""FF-B, "Do You Even Need Attention?", on ImageNet-1K from scratch (arXiv 2105.02723, Table 1).

  python train.py --config=configs/ff_base.py --workdir=gs://BUCKET/ff_base

Published: 74.9 % top-1, trained on 8 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """12 blocks of 768 channels; DeiT's recipe."""
  config = default.get_config()
  recipes.deit(config)
  config.model.name = "ff_base"
  return config
