"""Cascade Mask R-CNN with AS-MLP-B on COCO (arXiv 2107.08391, Table 5).

  python train.py --config=configs/cascade_mask_rcnn_asmlp_base.py --workdir=gs://BUCKET/cascade_mask_rcnn_asmlp_base

The argument is the length, 1x (12 epochs, default) or 3x (36 epochs):
--config=configs/cascade_mask_rcnn_asmlp_base.py:3x. Published: 51.1 % box AP and 44.2 % mask AP (1x), 51.5 % and 44.6
% (3x; the repository says 44.7 %). Not reproduced here yet.
"""

from configs import default, recipes


def get_config(length="1x"):
  """The recipe for 12 or 36 epochs, with shift size 5."""
  config = default.get_config()
  recipes.cascade_mask_rcnn(config, length)
  config.model.backbone = "asmlp_base"
  config.init_from = "asmlp_base.official"
  config.model.shift_size = 5
  config.model.drop_path = 0.2 if length == "1x" else 0.3
  return config
