"""UperNet with AS-MLP-T on ADE20K (arXiv 2107.08391, Table 6).

  python train.py --config=configs/upernet_asmlp_tiny.py --workdir=gs://BUCKET/upernet_asmlp_tiny

Published: 46.5 % mIoU with several scales and mirrored images. Not reproduced here yet. To evaluate so:

  python -m mlpvision.evaluate --weights=gs://BUCKET/upernet_asmlp_tiny --config=configs/upernet_asmlp_tiny.py \
    --config.eval.scales="(0.5, 0.75, 1.0, 1.25, 1.5, 1.75)" --config.eval.flip=True
"""

from configs import default, recipes


def get_config():
  """The recipe with drop path 0.3 and shift size 5."""
  config = default.get_config()
  recipes.upernet(config)
  config.model.backbone = "asmlp_tiny"
  config.init_from = "asmlp_tiny.official"
  config.model.shift_size = 5
  config.model.drop_path = 0.3
  return config
