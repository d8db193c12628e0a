"""Segments scenes of real handwritten digits that come with the installation: nothing is downloaded.

python train.py --config=configs/quickstart_segmentation.py --workdir=runs/segmentation
"""

from configs import default


def get_config():
  """A small AS-MLP with a small UperNet, on scenes of 96x96 pixels."""
  config = default.get_config()
  config.task = "segmentation"
  config.duration = "20 epochs"
  config.loss = "softmax"

  config.model.name = "upernet"
  config.model.backbone = "asmlp_tiny"
  config.model.hidden_dim = 24
  config.model.depths = (1, 1, 2, 1)
  config.model.channels = 48
  config.model.auxiliary_channels = 24

  config.data.name = "digit_scenes"
  config.data.scale = (96, 96)
  config.data.image_size = 96
  config.data.batch_size = 16
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.25, 0.25, 0.25)

  config.augment.resize_ratio = (0.8, 1.25)
  config.augment.cat_max_ratio = 1.0  # most of every scene is background
  config.augment.flip = 0.0  # mirrored digits are not valid digits

  config.optim.learning_rate = 2e-3
  config.optim.weight_decay = 0.05
  config.optim.clip_norm = 1.0
  config.optim.schedule.warmup = "1 epoch"
  config.optim.schedule.end = 1e-5

  config.eval.every = "2 epochs"
  config.eval.batch_size = 50
  config.checkpoint.every = "2 epochs"
  return config
