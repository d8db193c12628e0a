"""The papers' training recipes for ImageNet. A config applies one of them and sets its model.

None has been run to completion in this project: the accuracies in the configs are the papers'. Learning rates are for
the recipe's batch size. DeiT's and Swin's code scales learning rates in proportion to the batch size, except DeiT's
first and last.
"""


def imagenet(config):
  """ImageNet-1K at 224 pixels, with single-crop evaluation on the 50,000 validation images."""
  config.data.name = "imagenet2012"
  config.data.train_split = "train"
  config.data.eval_split = "validation"
  config.data.image_size = 224
  config.eval.crop_ratio = 0.875
  config.model.dtype = "bfloat16"
  config.checkpoint.every = "1 epoch"
  config.log_every = "100 steps"


def deit(config):
  """DeiT's recipe (arXiv 2012.12877, and its repository), also used by S2-MLP (arXiv 2106.07477, Sec. 4), FF (arXiv
  2105.02723) and CycleMLP (arXiv 2107.10224; its repository's main.py is DeiT's, with drop path 0.1 for all sizes).

  S2-MLP's paper specifies AdamW, weight decay 0.05, batch size 1024, 300 epochs, warm-up and cosine from 1e-3 to 1e-5,
  label smoothing, DropPath and repeated augmentation; all other values are DeiT's. DeiT reports the accuracy of the
  parameters themselves, not of their EMA.

  The schedule is the one that DeiT's main.py actually runs: timm's cosine, counted from step 0, updated once per epoch,
  after the epoch that the learning rate is meant for. The first two epochs therefore have a learning rate of 1e-6.
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
  config.optim.schedule.every = "1 epoch"
  config.optim.schedule.delay = "1 epoch"

  config.augment.crop = "random_resized"
  config.augment.randaugment = "rand-m9-mstd0.5-inc1"
  config.augment.repeats = 3
  config.augment.mixup = 0.8
  config.augment.cutmix = 1.0
  config.augment.random_erasing = 0.25


def deit_384(config):
  """DeiT's fine-tuning at 384 pixels of a model trained at 224 (its README_deit.md: 16 GPUs with 32 images each).

  The learning rate stays at 5e-6 after the warm-up, because the final value is also 5e-6. All other values are those of
  `deit`.
  """
  deit(config)
  config.duration = "30 epochs"
  config.data.image_size = 384
  config.data.batch_size = 512
  config.optim.learning_rate = 5e-6
  config.optim.weight_decay = 1e-8
  config.optim.schedule.end = 5e-6


def poolformer(config):
  """PoolFormer's recipe (arXiv 2111.11418, Sec. 4.1; README and defaults of its repository's train.py).

  DeiT's without EMA and repeated augmentation. timm's script sets the learning rate of an epoch before it. It appends
  ten epochs at the final learning rate, which are left out here.
  """
  deit(config)
  config.ema_decay = 0.0
  config.augment.repeats = 1
  config.optim.schedule.delay = "0 epochs"
  config.eval.crop_ratio = 0.9


def vip(config):
  """ViP's recipe (arXiv 2106.12368, Sec. 4.1; README of houqb/VisionPermutator). Equals DeiT's except for the values
  set here.

  The authors' logs have ten more epochs at the final learning rate, which are left out here.
  """
  poolformer(config)
  config.data.batch_size = 2048
  config.optim.learning_rate = 2e-3
  config.optim.schedule.warmup = "20 epochs"


def s2mlpv2(config):
  """S2-MLPv2's recipe (arXiv 2108.01072, Sec. 5), for Small; Medium has batches of 744.

  The paper names CutOut, which is random erasing, and an EMA. It does not state the augmentations' strengths, the EMA's
  decay or whether images are repeated: strengths and decay are DeiT's, nothing is repeated, as in ViP's recipe. Nor
  does it say whether the published accuracy is the EMA's.
  """
  vip(config)
  config.data.batch_size = 1024
  config.ema_decay = 0.99996
  config.optim.schedule.warmup = "10 epochs"
  config.eval.crop_ratio = 0.875


def resmlp(config):
  """ResMLP's recipe (arXiv 2105.03404, Sec. 3.1): DeiT's with LAMB, for 400 epochs.

  The first author gives batch size, drop path (0.05, for S12) and float32 in
  github.com/facebookresearch/deit/issues/106, and names the optimizer in issue 112: apex's FusedLAMB, which by default
  clips at 1.0. Both sources give a learning rate of 5e-3 but not whether the code scaled it with the batch size; here
  it is the peak. Evaluation crops less of the image (README_resmlp.md).
  """
  deit(config)
  config.duration = "400 epochs"
  config.data.batch_size = 2048
  config.model.dtype = "float32"
  config.model.drop_path = 0.05
  config.optim.name = "lamb"
  config.optim.learning_rate = 5e-3
  config.optim.weight_decay = 0.2
  config.optim.clip_norm = 1.0
  config.eval.crop_ratio = 0.9


def swin(config):
  """Swin's recipe (arXiv 2103.14030, and its repository), also used by AS-MLP's code. Equals DeiT's except for the
  values set here.

  The schedule is the one that main.py actually runs: timm's cosine, counted from step 0, so the warm-up ends at the
  peak and the next learning rate is 1 % lower. It is updated every step, after the step that the learning rate is meant
  for.
  """
  deit(config)
  config.ema_decay = 0.0
  config.augment.repeats = 1
  config.optim.clip_norm = 5.0
  config.optim.schedule.warmup = "20 epochs"
  config.optim.schedule.every = "1 step"
  config.optim.schedule.delay = "1 step"


def swin_384(config):
  """Swin's fine-tuning at 384 pixels of a model trained at 224 (its configs/*_384_finetune.yaml, and get_started.md).

  The learning rate is 2e-5 per 512 images, for 8 GPUs with 64 images each and two accumulation steps. AS-MLP's recipe
  for 384 pixels is not published; this is the most likely one, because the rest of its code is Swin's. Swin evaluates
  whole images stretched to a square; here the evaluation uses the largest central square.
  """
  swin(config)
  config.duration = "30 epochs"
  config.data.image_size = 384
  config.optim.learning_rate = 4e-5
  config.optim.weight_decay = 1e-8
  config.optim.schedule.warmup = "5 epochs"
  config.optim.schedule.start = 4e-8
  config.optim.schedule.end = 4e-7
  config.eval.crop_ratio = 1.0


def mixer(config):
  """The Mixer paper's recipe for ImageNet-1K from scratch (arXiv 2105.01601, Table 4).

  The paper leaves open the loss, the initial bias of the head, the final learning rate, and whether stochastic depth
  rescales; these come from the authors' repository big_vision. The paper's weight decay of 0.1 is AdamW's, i.e. it is
  multiplied by the learning rate.
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
  config.augment.randaugment = "randaug(2,15)"
  config.augment.mixup = 0.5


def mixer_sam(config):
  """Mixer-B/16 with sharpness-aware minimization (arXiv 2106.01548): random crops and flips alone, no stochastic depth.

  The authors' code is not public. Their later work's is, big_vision's configs/proj/gsam/vit_i1k_gsam_no_aug.py, which
  trains on the same images: batch size, duration, loss, initial bias of the head, clipping, learning rates, warm-up and
  weight decay (0.3, as its comment says of the paper) are that config's, and so is the rho of 0.6, which it decreases
  with the learning rate and the paper does not. The published result ascends on each device by itself, see
  mlpvision/training/sam.py.
  """
  imagenet(config)
  config.duration = "300 epochs"
  config.data.batch_size = 4096
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.5, 0.5, 0.5)
  config.loss = "sigmoid"
  config.model.head_bias_init = -10.0

  config.optim.name = "adamw"
  config.optim.learning_rate = 3e-3
  config.optim.weight_decay = 0.3
  config.optim.clip_norm = 1.0
  config.optim.sam_rho = 0.6
  config.optim.schedule.name = "linear"
  config.optim.schedule.warmup = "10000 steps"
  config.optim.schedule.end = 3e-5

  config.augment.crop = "random_resized"
  config.augment.crop_scale = (0.05, 1.0)


def gmlp(config):
  """gMLP's recipe (arXiv 2105.08050, App. A.1, Table 7), which its paper also uses for Mixer-B/16.

  AdamW with epsilon 1e-6, clipping at 1, 10,000 steps of warm-up; no EMA, no random erasing, no repeated augmentation.
  The paper's AutoAugment has no counterpart here: DeiT's RandAugment takes its place. Its survival probability of 0.95
  for S and Mixer-B (1 for Ti, 0.8 for B) is a drop path of 0.05. The final learning rate is not stated; it is 0.
  """
  imagenet(config)
  config.duration = "300 epochs"
  config.data.batch_size = 4096
  config.label_smoothing = 0.1
  config.model.drop_path = 0.05

  config.optim.name = "adamw"
  config.optim.kwargs.eps = 1e-6
  config.optim.learning_rate = 1e-3
  config.optim.weight_decay = 0.05
  config.optim.clip_norm = 1.0
  config.optim.schedule.name = "cosine"
  config.optim.schedule.warmup = "10000 steps"

  config.augment.crop = "random_resized"
  config.augment.randaugment = "rand-m9-mstd0.5-inc1"
  config.augment.mixup = 0.8
  config.augment.cutmix = 1.0


def mixer_21k(config):
  """The Mixer paper's pre-training of B models on ImageNet-21K (arXiv 2105.01601, Table 4).

  For L models, the paper uses randaug(2,20) and mixup 0.5. The initial bias of the head is that of big_vision's ViT on
  the same images. The held-out images are not the paper's: see mlpvision.prepare.builders.imagenet21k.
  """
  mixer(config)
  config.data.name = "imagenet21k/fall11"
  config.model.head_bias_init = -10.0
  config.augment.randaugment = "randaug(2,10)"
  config.augment.mixup = 0.2


def mixer_finetune(config):
  """The Mixer paper's fine-tuning on ImageNet-1K (arXiv 2105.01601, Sec. 3 and App. C).

  SGD with momentum 0.9, batch size 512, gradient clipping at 1, cosine with warm-up, no weight decay, no other
  augmentation or regularization. Steps, warm-up and the learning rate of 0.03 are the defaults of the authors'
  repository vision_transformer; the paper chose the learning rate from 0.003, 0.01, 0.03, 0.06.
  """
  imagenet(config)
  config.duration = "20000 steps"
  config.data.batch_size = 512
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.5, 0.5, 0.5)
  config.optim.name = "sgd"
  config.optim.kwargs.momentum = 0.9
  config.optim.learning_rate = 0.03
  config.optim.clip_norm = 1.0
  config.optim.schedule.name = "cosine"
  config.optim.schedule.warmup = "500 steps"
  config.augment.crop = "random_resized"
  config.augment.crop_scale = (0.05, 1.0)


def small_finetune(config):
  """Changes `mixer_finetune` or `adamw_finetune` for some hundred images: steps, batch, warm-up and evaluation.

  Values of our own. Four images at a time fit a laptop: see docs/recipes.md.
  """
  config.duration = "20 epochs"
  config.data.batch_size = 32
  config.accumulation_steps = 8
  config.optim.learning_rate = 1e-4 if config.optim.name == "adamw" else 0.003
  config.optim.schedule.warmup = "1 epoch"
  config.eval.batch_size = 32
  config.eval.every = "2 epochs"
  config.checkpoint.every = "2 epochs"
  config.checkpoint.keep = 1
  config.log_every = "5 steps"


def adamw_finetune(config):
  """Changes `mixer_finetune` to AdamW with layer-wise learning-rate decay.

  It follows no single source: layer-wise decay is from BEiT (arXiv 2106.08254), the values are common choices.
  """
  config.duration = "30 epochs"
  config.data.batch_size = 1024
  config.label_smoothing = 0.1
  config.model.drop_path = 0.1
  config.optim.name = "adamw"
  del config.optim.kwargs.momentum
  config.optim.learning_rate = 5e-4
  config.optim.weight_decay = 0.05
  config.optim.layer_decay = 0.65
  config.optim.schedule.warmup = "5 epochs"
  config.optim.schedule.start = 1e-6
  config.optim.schedule.end = 1e-6


def upernet(config):
  """AS-MLP's and Swin's UperNet on ADE20K (AS-MLP, arXiv 2107.08391, Sec. 4.3; its repository's and Swin's configs).

  16 crops of 512x512 a step (8 GPUs with two), 160,000 steps from ImageNet weights. The learning rate falls linearly to
  0, counted from step 0; in the warm-up it is multiplied by a factor that grows from 1e-6 to 1. Parameters whose name
  contains "norm" are not decayed; biases and the head's batch normalization, which is named "bn" there, are. The
  originals train in float32, without clipping and EMA.
  """
  config.task = "segmentation"
  config.duration = "160000 steps"
  config.loss = "softmax"
  config.auxiliary_loss = 0.4
  config.model.name = "upernet"
  config.model.dtype = "bfloat16"

  config.data.name = "ade20k"
  config.data.train_split = "train"
  config.data.eval_split = "validation"
  config.data.reduce_zero_label = True
  config.data.scale = (2048, 512)
  config.data.image_size = 512
  config.data.batch_size = 16

  config.augment.resize_ratio = (0.5, 2.0)
  config.augment.cat_max_ratio = 0.75
  config.augment.flip = 0.5
  config.augment.photometric = True

  config.optim.name = "adamw"
  config.optim.learning_rate = 6e-5
  config.optim.weight_decay = 0.01
  config.optim.decay_mask = "^(?!.*norm)"
  config.optim.schedule.name = "linear"
  config.optim.schedule.clock = "product"
  config.optim.schedule.warmup = "1500 steps"
  config.optim.schedule.start = 6e-11

  config.eval.every = "16000 steps"
  config.eval.batch_size = 8
  config.eval.interpolation = "bilinear"
  config.checkpoint.every = "2000 steps"
  config.checkpoint.best = "val/miou"
  config.log_every = "50 steps"


def mask_rcnn(config, length):
  """AS-MLP's and Swin's Mask R-CNN and Cascade Mask R-CNN on COCO (AS-MLP, arXiv 2107.08391, Sec. 4.2; its
  repository's configs).

  16 images a step (8 GPUs with two) for 12 epochs (1x) or 36 (3x) from ImageNet weights. The learning rate is divided
  by ten after 8 and 11, or 27 and 33 epochs; in the first 500 steps it is multiplied by a factor that grows from 0.001
  to 1. Parameters whose name contains "norm" are not decayed; biases and the box heads' batch normalization, which is
  named "bn" there, are. No clipping and no EMA; the originals train in mixed precision.

  Images are resized so that the shorter side is one of eleven lengths from 480 to 800 and the longer at most 1333
  pixels, half of them cropped before. A batch of the original is as large as its largest image; here it is 800x1344 or
  1344x800, and no image sees its padding.
  """
  if length not in ("1x", "3x"):
    raise ValueError(f"the argument is {length!r}, and must be 1x or 3x")
  epochs = {"1x": 12, "3x": 36}[length]
  config.task = "detection"
  config.duration = f"{epochs} epochs"
  config.model.name = "mask_rcnn"
  config.model.dtype = "bfloat16"

  config.data.name = "coco2017_instances"
  config.data.train_split = "train"
  config.data.eval_split = "validation"
  config.data.scale = (1333, 800)
  config.data.canvas = (800, 1344)
  config.data.batch_size = 16

  config.augment.flip = 0.5
  config.augment.crop_probability = 0.5

  config.optim.name = "adamw"
  config.optim.learning_rate = 1e-4
  config.optim.weight_decay = 0.05
  config.optim.decay_mask = "^(?!.*norm)"
  config.optim.schedule.name = "step"
  config.optim.schedule.clock = "product"
  config.optim.schedule.warmup = "500 steps"
  config.optim.schedule.start = 1e-7
  config.optim.schedule.milestones = {12: ("8 epochs", "11 epochs"), 36: ("27 epochs", "33 epochs")}[epochs]

  config.eval.every = "1 epoch"
  config.eval.batch_size = 16
  config.eval.interpolation = "bilinear"
  config.checkpoint.every = "1000 steps"
  config.checkpoint.best = "val/box_ap"
  config.log_every = "50 steps"


def cascade_mask_rcnn(config, length):
  """`mask_rcnn` with the cascade's three stages; RoIs are as many, proposals twice as many in training."""
  mask_rcnn(config, length)
  config.model.name = "cascade_mask_rcnn"
