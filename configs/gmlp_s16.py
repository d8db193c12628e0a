"""gMLP-S/16 on ImageNet-1K from scratch (arXiv 2105.08050, Tables 1, 2 and 7).

  python train.py --config=configs/gmlp_s16.py --workdir=gs://BUCKET/gmlp_s16

Published: 79.6 % top-1, trained on a TPUv2-128 in 1 to 4 hours. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """30 blocks of 256 channels; gMLP's recipe."""
  config = default.get_config()
  recipes.gmlp(config)
  config.model.name = "gmlp_s16"
  return config
