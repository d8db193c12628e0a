"""Trains a segmenter on your own folder of images and label maps, from any weights.

  python train.py --config=configs/upernet_finetune.py --config.init_from=WEIGHTS --config.model.backbone=NAME \\
    --config.data.name=folder:PATH --workdir=runs/segmenter

PATH has train/images, train/labels, val/images, val/labels and classes.txt, see docs/loading.md. WEIGHTS is a
classifier's or a segmenter's workdir, a weight file or a name listed in docs/weights.md; NAME is the classifier's
model, or any variant of the same family. "" trains from scratch.

The recipe is that of `recipes.upernet` for 40 epochs of 512x512 crops, with 16 a step. For a few hundred images on one
small machine: --config.data.batch_size=4 --config.data.image_size=256 --config.data.scale="(1024, 256)".
"""

from configs import default, recipes


def get_config():
  """UperNet on AS-MLP-T."""
  config = default.get_config()
  recipes.upernet(config)
  config.model.backbone = "asmlp_tiny"
  config.model.drop_path = 0.1
  config.init_from = "asmlp_tiny.official"
  config.duration = "40 epochs"
  config.optim.schedule.warmup = "1 epoch"
  config.data.name = "folder:segmentation"
  config.data.train_split = "train"
  config.data.eval_split = "val"
  config.data.reduce_zero_label = False
  config.loss = "softmax_valid"
  config.eval.every = "1 epoch"
  config.checkpoint.every = "1 epoch"
  return config
