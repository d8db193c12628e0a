"""A small S2-MLP on 5,000 real handwritten digits that come with the installation: nothing is downloaded.

  python train.py --config=configs/quickstart.py

Without spatial shifts, no information moves between patches (Table 7 of the paper). To compare:
--config.model.directions=none --workdir=runs/no_shift
"""

from configs import default


def get_config():
  """S2-MLP with 8 blocks of 64 channels on 7x7 patches of 4x4 pixels."""
  config = default.get_config()
  config.duration = "20 epochs"
  config.label_smoothing = 0.1

  config.model.name = "s2mlp_wide"
  config.model.num_blocks = 8
  config.model.hidden_dim = 64
  config.model.patch_size = 4
  config.model.directions = "four"

  config.data.name = "mnist5k"
  config.data.image_size = 28
  config.data.batch_size = 80
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.5, 0.5, 0.5)

  config.augment.crop = "affine"
  config.augment.rotation = 15.0
  config.augment.zoom = 0.15
  config.augment.shift = 3.0
  config.augment.flip = 0.0  # mirrored digits are not valid digits

  config.optim.learning_rate = 2e-3
  config.optim.weight_decay = 0.05
  config.optim.clip_norm = 1.0
  config.optim.schedule.warmup = "2 epochs"
  config.optim.schedule.end = 1e-5

  config.eval.crop_ratio = 1.0
  return config
