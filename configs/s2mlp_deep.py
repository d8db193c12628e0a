"""S2-MLP-deep on ImageNet-1K from scratch (arXiv 2106.07477, Tables 2 and 3).

  python train.py --config=configs/s2mlp_deep.py --workdir=gs://BUCKET/s2mlp_deep

Published: 80.7 % top-1, 95.4 % top-5. Not reproduced here yet. The paper specifies neither the position nor the
initialization of the affine transforms that replace layer norm: see mlpvision.models.s2mlp.
"""

from configs import default, recipes


def get_config():
  """36 blocks of 384 channels; DeiT's recipe."""
  config = default.get_config()
  recipes.deit(config)
  config.model.name = "s2mlp_deep"
  config.model.directions = "four"
  config.model.border = "keep"
  config.model.norm_position = "post"
  config.model.affine_init = 1e-6
  config.model.remat = "preactivations"  # less memory, and faster on TPU: docs/performance.md
  return config
