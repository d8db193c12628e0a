"""ViT-B/16 on ImageNet-1K from scratch, as DeiT-B (arXiv 2012.12877; its README_deit.md).

  python train.py --config=configs/vit_b16.py --workdir=gs://BUCKET/vit_b16

Published: 81.8 % top-1, 95.6 % top-5, trained on 16 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """12 blocks of 768 channels with 12 heads; DeiT's recipe."""
  config = default.get_config()
  recipes.deit(config)
  config.model.name = "vit_b16"
  return config
