"""AS-MLP-S on ImageNet-1K from scratch (arXiv 2107.08391, Table 1).

  python train.py --config=configs/asmlp_small.py --workdir=gs://BUCKET/asmlp_small

Published: 83.1 % top-1, trained on 8 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """Swin's recipe with drop path 0.3."""
  config = default.get_config()
  recipes.swin(config)
  config.model.name = "asmlp_small"
  config.model.shift_size = 5
  config.model.drop_path = 0.3
  return config
