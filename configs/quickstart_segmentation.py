"""Segments scenes of real handwritten digits that come with the installation: nothing is downloaded.

  python train.py --config=configs/quickstart_segmentation.py --workdir=runs/segmentation

Each scene of 96x96 pixels has two to six digits, in colors of their own, over one another and over a colored ground;
the classes are the background and the ten digits. Nine tenths of the pixels are background, which alone gives a mean
IoU of 8.1 %. Muon gets further than AdamW in these few minutes, by far.
"""

from configs import default


def get_config():
  """A small AS-MLP with a small UperNet."""
  config = default.get_config()
  config.task = "segmentation"
  config.duration = "5 epochs"
  config.loss = "softmax"

  config.model.name = "upernet"
  config.model.backbone = "asmlp_tiny"
  config.model.hidden_dim = 16
  config.model.depths = (1, 1, 2, 1)
  config.model.channels = 32
  config.model.auxiliary_channels = 16

  config.data.name = "digit_scenes"
  config.data.scale = (96, 96)
  config.data.image_size = 96
  config.data.batch_size = 16
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.25, 0.25, 0.25)

  config.augment.resize_ratio = (0.9, 1.1)
  config.augment.cat_max_ratio = 1.0
  config.augment.flip = 0.0  # mirrored digits are not valid digits

  config.optim.name = "muon"
  config.optim.learning_rate = 1e-2
  config.optim.clip_norm = 1.0
  config.optim.schedule.warmup = "60 steps"

  config.eval.every = "1 epoch"
  config.eval.batch_size = 50
  config.checkpoint.every = "1 epoch"
  return config
