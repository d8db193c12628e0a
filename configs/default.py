"""Every field that a config can have, with its meaning. Other configs start from this one and change what differs.

Any field can be changed on the command line, e.g. --config.data.batch_size=512. Durations are strings with a unit:
"300 epochs", "0.5 epochs", "10000 steps".
"""

import ml_collections


def get_config():
  """The fields of every config, with values that suit a small model."""
  config = ml_collections.ConfigDict()

  # Parameters to start from: a run's workdir or one of its checkpoints, a file of weights, or a name of
  # docs/weights.md. Positions are adapted to data.image_size; another number of classes gets a new head; options that
  # config.model does not name are the weights'. "": none.
  config.init_from = ""
  # The seed of everything: initial parameters, order of the images, augmentation, drop path.
  config.seed = 0
  # How long to train.
  config.duration = "100 epochs"
  # "softmax" cross-entropy, or "sigmoid": one binary cross-entropy per class, summed.
  config.loss = "softmax"
  # Takes this much from the true class and spreads it evenly over all classes.
  config.label_smoothing = 0.0
  # Decay of the moving average of the parameters; 0 keeps none. Evaluations then report both.
  config.ema_decay = 0.0
  # Each step sums the gradients of this many equal parts of the batch; less memory, the same result.
  config.accumulation_steps = 1

  # The model: `name` is one of mlpvision.models.MODELS, all other fields are attributes of its module. A config adds
  # those that it changes. The number of classes is the dataset's.
  config.model = ml_collections.ConfigDict()
  config.model.name = "s2mlp_wide"
  # Of the computation: "float32" or "bfloat16". Parameters, optimizer and loss are float32.
  config.model.dtype = "float32"
  # Stochastic depth of the last block, linear from 0 in the first.
  config.model.drop_path = 0.0
  config.model.dropout = 0.0
  # What the backward pass computes again: "none"; "block", every block, much less memory for about a third more
  # computation; "preactivations", only activations, norms and shifts: about half the memory, and faster on TPU.
  config.model.remat = "none"

  config.data = ml_collections.ConfigDict()
  # A tfds name ("imagenet2012", "cifar10:3.*.*"), prepared as array_record. Our own mnist5k prepares itself. Or any
  # folder of images, "folder:/path", with /path/SPLIT/CLASS/*.jpg or /path/CLASS/*.jpg (mlpvision/data/folder.py).
  config.data.name = "mnist5k"
  # Where tfds keeps prepared datasets; None is $TFDS_DATA_DIR, or else ~/tensorflow_datasets.
  config.data.data_dir = ml_collections.config_dict.placeholder(str)
  # Splits in tfds's notation, e.g. "train[:99%]". A folder without splits is all "train".
  config.data.train_split = "train"
  config.data.eval_split = "test"
  # Side in pixels of the square images that the model sees.
  config.data.image_size = 224
  # Images per step, over all devices and hosts.
  config.data.batch_size = 128
  # Per channel, of pixels in [0, 1]: what the device subtracts, then divides by. Default: ImageNet's.
  config.data.mean = (0.485, 0.456, 0.406)
  config.data.std = (0.229, 0.224, 0.225)
  # Processes per host that read, decode and augment; 0 does it in threads of the main process, which costs less but
  # does not scale far; -1 chooses by the number of cores.
  config.data.workers = -1
  # Batches that are prepared ahead.
  config.data.prefetch = 4

  # What happens to training images, in this order. Crop to repeats on the host, the rest on the device.
  config.augment = ml_collections.ConfigDict()
  # How an image becomes image_size x image_size: "random_resized" (part of the image), "affine" (rotation, zoom and
  # shift at random) or "center" (as in evaluation).
  config.augment.crop = "random_resized"
  # random_resized: the part's area over the image's, and its width over its height; uniform and log-uniform.
  config.augment.crop_scale = (0.08, 1.0)
  config.augment.crop_ratio = (0.75, 4 / 3)
  # affine: at most this many degrees, this fraction, this many pixels (of image_size), either way.
  config.augment.rotation = 0.0
  config.augment.zoom = 0.0
  config.augment.shift = 0.0
  # timm's notation, e.g. "rand-m9-mstd0.5-inc1", or big_vision's, e.g. "randaug(2,15)"; "" is none.
  config.augment.randaugment = ""
  # Each image this many times per epoch, as many fewer images (Hoffer et al., arXiv 1901.09335).
  config.augment.repeats = 1
  # Probability of a horizontal flip.
  config.augment.flip = 0.5
  # Probability that a rectangle of an image is replaced by noise (arXiv 1708.04896).
  config.augment.random_erasing = 0.0
  # Parameters of the Beta distributions of mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899); 0 is off. Where both
  # are on, a coin decides for each batch. Neighbours in the batch are partners.
  config.augment.mixup = 0.0
  config.augment.cutmix = 0.0

  config.optim = ml_collections.ConfigDict()
  # An optimizer of optax or optax.contrib ("adamw", "sgd", "lion", "muon", ...), or of mlpvision/training/optim.py
  # ("lamb", "sophia", "schedule_free_adamw"), which take precedence.
  config.optim.name = "adamw"
  # Its other arguments, e.g. b2 or momentum.
  config.optim.kwargs = ml_collections.ConfigDict()
  # Peak learning rate, reached at the end of the warm-up.
  config.optim.learning_rate = 1e-3
  # Weight decay as the optimizer defines it; decoupled in AdamW and most others.
  config.optim.weight_decay = 0.0
  # Weight decay applies to parameters whose path matches this regex. The default leaves out biases, norms, class tokens
  # and position embeddings.
  config.optim.decay_mask = "kernel$"
  # Gradients with a larger global norm are scaled down to it; 0 disables clipping.
  config.optim.clip_norm = 0.0
  # Learning-rate multipliers: (regex of a parameter's path, factor) pairs. The first match applies; 0 freezes.
  # (("^(?!head)", 0.0),) trains the head alone.
  config.optim.lr_multipliers = ()
  # Layer-wise learning-rate decay, on top of the multipliers: each layer below the head has this times the learning
  # rate of the layer above. 1 disables it.
  config.optim.layer_decay = 1.0
  # On a NaN or infinite loss or gradient, "stop" ends the run; "skip" leaves the step out, and ends the run after ten
  # such steps in a row.
  config.optim.nonfinite = "stop"

  # The learning rate: linear warm-up from `start`, then "cosine", "linear" or "constant" down to `end`.
  config.optim.schedule = ml_collections.ConfigDict()
  config.optim.schedule.name = "cosine"
  config.optim.schedule.warmup = "0 steps"
  config.optim.schedule.start = 0.0
  config.optim.schedule.end = 0.0
  # Where the decay's clock starts: "warmup", at the warm-up's end; "zero", at step 0, as timm's schedulers do: the
  # rate then falls a little below the peak when the warm-up ends.
  config.optim.schedule.clock = "warmup"
  # The rate changes once in this time, at its beginning: DeiT's once in "1 epoch".
  config.optim.schedule.every = "1 step"
  # How much later than due each rate comes. DeiT's and Swin's code set a rate after the epoch or step that it is for.
  config.optim.schedule.delay = "0 steps"

  # Evaluation on data.eval_split: the whole image is scaled so that its shorter side is image_size / crop_ratio,
  # then the centre is cut out.
  config.eval = ml_collections.ConfigDict()
  config.eval.every = "1 epoch"
  # Need not divide the number of images: the last batch is padded and masked.
  config.eval.batch_size = 256
  config.eval.crop_ratio = 0.875
  # Pillow's antialiased "bicubic" or "bilinear".
  config.eval.interpolation = "bicubic"

  # Few-shot accuracy: a linear classifier on the pooled features, from few images per class (evaluation/fewshot.py).
  config.fewshot = ml_collections.ConfigDict()
  # In steps or epochs; "" is never.
  config.fewshot.every = ""
  # Images per class; 0 takes all of the split: the linear probe.
  config.fewshot.shots = (5, 10)
  # Another dataset for it, with these splits; "" is data.name, with its splits.
  config.fewshot.name = ""
  config.fewshot.train_split = "train"
  config.fewshot.eval_split = "test"

  config.checkpoint = ml_collections.ConfigDict()
  # In steps or epochs; or in minutes or hours, which are looked at whenever metrics are logged.
  config.checkpoint.every = "1 epoch"
  # The newest this many stay.
  config.checkpoint.keep = 3
  # A metric of the evaluation, e.g. "val/top1": of the checkpoints saved at an evaluation's step, the best stays too.
  config.checkpoint.best = ""

  # Devices in a mesh: the batch is split over data and fsdp, large parameters over fsdp, the hidden channels of the
  # channel MLPs over model. -1 is all that remain.
  config.mesh = ml_collections.ConfigDict()
  config.mesh.data = -1
  config.mesh.fsdp = 1
  config.mesh.model = 1
  # Own placements, before these: (regex of a parameter's path, (mesh axis or None for each dimension)) pairs.
  config.mesh.rules = ()

  # A process ends itself with a message when nothing was completed for so long, because another one is dead or hangs.
  config.hang_timeout = "30 minutes"

  # Between two lines of metrics.
  config.log_every = "50 steps"
  return config
