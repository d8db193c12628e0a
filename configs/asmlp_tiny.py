"""AS-MLP-T on ImageNet-1K from scratch (arXiv 2107.08391, Table 1).

  python train.py --config=configs/asmlp_tiny.py --workdir=gs://BUCKET/asmlp_tiny

Published: 81.3 % top-1, trained on 8 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """Swin's recipe with drop path 0.2."""
  config = default.get_config()
  recipes.swin(config)
  config.model.name = "asmlp_tiny"
  config.model.shift_size = 5
  config.model.drop_path = 0.2
  return config
