"""Mask R-CNN with AS-MLP-S on COCO (arXiv 2107.08391, Table 5).

  python train.py --config=configs/mask_rcnn_asmlp_small.py --workdir=gs://BUCKET/mask_rcnn_asmlp_small

The argument is the length, 1x (12 epochs, default) or 3x (36 epochs): --config=configs/mask_rcnn_asmlp_small.py:3x.
Published: 46.7 % box AP and 42.0 % mask AP (1x), 47.8 % and 42.9 % (3x). Not reproduced here yet.

The paper's shift size is 5 in all experiments; the released config of 3x has 3 (--config.model.shift_size=3).
"""

from configs import default, recipes


def get_config(length="1x"):
  """The recipe for 12 or 36 epochs, with shift size 5."""
  config = default.get_config()
  recipes.mask_rcnn(config, length)
  config.model.backbone = "asmlp_small"
  config.init_from = "asmlp_small.official"
  config.model.shift_size = 5
  config.model.drop_path = 0.2
  return config
