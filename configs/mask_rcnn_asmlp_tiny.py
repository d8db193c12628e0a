"""Mask R-CNN with AS-MLP-T on COCO (arXiv 2107.08391, Table 5).

  python train.py --config=configs/mask_rcnn_asmlp_tiny.py --workdir=gs://BUCKET/mask_rcnn_asmlp_tiny

The argument is the length, 1x (12 epochs, default) or 3x (36 epochs): --config=configs/mask_rcnn_asmlp_tiny.py:3x.
Published: 44.0 % box AP and 40.0 % mask AP (1x), 46.0 % and 41.5 % (3x). Not reproduced here yet.
"""

from configs import default, recipes


def get_config(length="1x"):
  """The recipe for 12 or 36 epochs, with shift size 5."""
  config = default.get_config()
  recipes.mask_rcnn(config, length)
  config.model.backbone = "asmlp_tiny"
  config.init_from = "asmlp_tiny.official"
  config.model.shift_size = 5
  config.model.drop_path = 0.2
  return config
