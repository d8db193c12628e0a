"""AS-MLP-B on ImageNet-1K from scratch (arXiv 2107.08391, Table 1).

  python train.py --config=configs/asmlp_base.py --workdir=gs://BUCKET/asmlp_base

Published: 83.3 % top-1, trained on 8 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """Swin's recipe with drop path 0.5."""
  config = default.get_config()
  recipes.swin(config)
  config.model.name = "asmlp_base"
  config.model.shift_size = 5
  config.model.drop_path = 0.5
  return config
