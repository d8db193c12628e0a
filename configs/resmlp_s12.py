"""ResMLP-S12 on ImageNet-1K from scratch (arXiv 2105.03404).

  python train.py --config=configs/resmlp_s12.py --workdir=gs://BUCKET/resmlp_s12

Published: 76.6 % top-1 without distillation; the paper does not state the hardware. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """12 blocks of 384 channels; ResMLP's recipe, with LAMB."""
  config = default.get_config()
  recipes.resmlp(config)
  config.model.name = "resmlp_s12"
  return config
