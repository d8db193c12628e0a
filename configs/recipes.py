"""The papers' training recipes for ImageNet-1K, each in one place; a config takes one and adds its model.

None of them has been run to the end in this project: the accuracies in the configs are the papers'.
"""


def imagenet(config):
  """ImageNet-1K at 224, single-crop evaluation on the 50,000 validation images."""
  config.data.name = "imagenet2012"
  config.data.train_split = "train"
  config.data.eval_split = "validation"
  config.data.image_size = 224
  config.data.workers = 16
  config.eval.crop_ratio = 0.875
  config.model.dtype = "bfloat16"
  config.checkpoint.every = "1 epoch"
  config.log_every = "100 steps"


def deit(config):
  """DeiT's (arXiv 2012.12877, and its repository), which S2-MLP follows (arXiv 2106.07477, Sec. 4).

  S2-MLP itself names AdamW, weight decay 0.05, batch 1024, 300 epochs, warm-up and cosine from 1e-3 to 1e-5, label
  smoothing, DropPath and repeated augmentation; all other values are DeiT's. DeiT changes the rate once an epoch, here
  it changes every step. DeiT reports the parameters themselves, not their average.
  """
  imagenet(config)
  config.duration = "300 epochs"
  config.data.batch_size = 1024
  config.label_smoothing = 0.1
  config.ema_decay = 0.99996
  config.model.drop_path = 0.1

  config.optim.name = "adamw"
  config.optim.learning_rate = 1e-3
  config.optim.weight_decay = 0.05
  config.optim.schedule.name = "cosine"
  config.optim.schedule.warmup = "5 epochs"
  config.optim.schedule.start = 1e-6
  config.optim.schedule.end = 1e-5
  config.optim.schedule.clock = "zero"

  config.augment.crop = "random_resized"
  config.augment.randaugment = "rand-m9-mstd0.5-inc1"
  config.augment.repeats = 3
  config.augment.mixup = 0.8
  config.augment.cutmix = 1.0
  config.augment.random_erasing = 0.25


def swin(config):
  """Swin's (arXiv 2103.14030, and its repository), which AS-MLP's code shares. As DeiT's, but for what is set here."""
  deit(config)
  config.ema_decay = 0.0
  config.augment.repeats = 1
  config.optim.clip_norm = 5.0
  config.optim.schedule.warmup = "20 epochs"


def mixer(config):
  """The Mixer paper's for ImageNet-1K from scratch (arXiv 2105.01601, Table 4), with what it leaves open (loss, initial
  head bias, last learning rate, stochastic depth without rescaling) from the authors' repository big_vision.

  The paper's weight decay of 0.1 is AdamW's, that is, multiplied by the learning rate.
  """
  imagenet(config)
  config.duration = "300 epochs"
  config.data.batch_size = 4096
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.5, 0.5, 0.5)
  config.loss = "sigmoid"
  config.model.drop_path = 0.1
  config.model.drop_path_rescale = False
  config.model.head_bias_init = -6.9

  config.optim.name = "adamw"
  config.optim.learning_rate = 1e-3
  config.optim.weight_decay = 0.1
  config.optim.clip_norm = 1.0
  config.optim.schedule.name = "linear"
  config.optim.schedule.warmup = "10000 steps"
  config.optim.schedule.end = 1e-5

  config.augment.crop = "random_resized"
  config.augment.crop_scale = (0.05, 1.0)
  config.augment.randaugment = "2 layers, magnitude 15"
  config.augment.mixup = 0.5
