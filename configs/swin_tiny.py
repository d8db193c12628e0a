"""Swin-T on ImageNet-1K from scratch (arXiv 2103.14030; README of microsoft/Swin-Transformer).

  python train.py --config=configs/swin_tiny.py --workdir=gs://BUCKET/swin_tiny

Published: 81.2 % top-1, 95.5 % top-5, trained on 8 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """Swin's recipe with drop path 0.2."""
  config = default.get_config()
  recipes.swin(config)
  config.model.name = "swin_tiny"
  config.model.drop_path = 0.2
  return config
