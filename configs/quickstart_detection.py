"""Detects and masks real handwritten digits in scenes that come with the installation: nothing is downloaded.

  python train.py --config=configs/quickstart_detection.py --workdir=runs/detection

Each scene of 96x96 pixels has two to six digits, in colors of their own, over one another and over a colored ground.
From scratch, the box head learns only with a smaller rate for the kernels that are no matrices, which Muon leaves to
Adam.
"""

from configs import default


def get_config():
  """A small AS-MLP with a small Mask R-CNN."""
  config = default.get_config()
  config.task = "detection"
  config.duration = "3.5 epochs"

  config.model.name = "mask_rcnn"
  config.model.backbone = "asmlp_tiny"
  config.model.hidden_dim = 16
  config.model.depths = (1, 1, 2, 1)
  config.model.channels = 24
  config.model.head_dim = 128
  config.model.pre_nms = (100, 100)
  config.model.train_proposals = 64
  config.model.test_proposals = 64
  config.model.rpn_samples = 64
  config.model.roi_samples = 32
  config.model.detections = 20

  config.data.name = "digit_scenes"
  config.data.scale = (96, 96)
  config.data.canvas = (96, 96)
  config.data.max_objects = 8
  config.data.batch_size = 8
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.25, 0.25, 0.25)

  config.augment.short_sides = (88, 96)
  config.augment.crop_probability = 0.0
  config.augment.flip = 0.0  # mirrored digits are not valid digits

  config.optim.name = "muon"
  config.optim.learning_rate = 1e-2
  config.optim.kwargs.adam_learning_rate = 1e-3
  config.optim.clip_norm = 1.0
  config.optim.schedule.warmup = "100 steps"

  config.eval.every = "3.5 epochs"
  config.eval.batch_size = 50
  config.checkpoint.every = "1 epoch"
  return config
