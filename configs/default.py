"""All config fields, with their defaults. Other configs start from this one and override what differs.

Set any field on the command line, e.g. --config.data.batch_size=512. Durations are strings with a unit: "300 epochs",
"0.5 epochs", "10000 steps".
"""

import ml_collections


def get_config():
  """All fields, with defaults for a small model."""
  config = ml_collections.ConfigDict()

  # Warm start: initialize the parameters from a run's workdir, one of its checkpoints, or weights as docs/weights.md
  # lists them: a file, a folder, a published name, hf://OWNER/NAME. Position embeddings and token-mixing weights are
  # adapted to data.image_size. The head is initialized anew if the classes differ. Options that config.model does not
  # set are taken from the weights. "" trains from scratch. When a run is resumed, the workdir's own checkpoint takes
  # precedence.
  config.init_from = ""
  # What is learnt: a name in mlpvision.tasks.TASKS.
  config.task = "classification"
  # Seed of all randomness: initial parameters, order of the images, augmentation, drop path, dropout.
  config.seed = 0
  # Length of the training run, in steps or epochs.
  config.duration = "100 epochs"
  # "softmax": cross-entropy. "sigmoid": binary cross-entropy per class, summed over the classes. Segmentation has
  # "softmax", the mean over all pixels, of which ignored ones count as 0, and "softmax_valid", over the labeled pixels.
  config.loss = "softmax"
  # Segmentation: weight of the auxiliary head's loss.
  config.auxiliary_loss = 0.4
  # Label smoothing: the share of the target that is spread evenly over all classes.
  config.label_smoothing = 0.0
  # Decay of the EMA of the parameters, e.g. 0.9999; 0 disables it. With EMA, both sets of parameters are evaluated.
  config.ema_decay = 0.0
  # Gradient accumulation: split each batch into this many equal parts and process them one after another. Needs less
  # memory and gives the same result. Must divide data.batch_size.
  config.accumulation_steps = 1

  # The model. `name` is a variant in mlpvision.models.MODELS; all other fields are passed to its module as attributes,
  # and a config can add any attribute of that module. The number of classes comes from the dataset.
  config.model = ml_collections.ConfigDict()
  config.model.name = "s2mlp_wide"
  # Dtype of the computation: "float32" or "bfloat16". Parameters, optimizer state and loss are always float32.
  config.model.dtype = "float32"
  # Stochastic depth: drop rate of the last block. The rate increases linearly from 0 in the first block.
  config.model.drop_path = 0.0
  # Dropout rate.
  config.model.dropout = 0.0
  # Rematerialization, i.e. what the backward pass recomputes to save memory. "none": nothing. "block": whole blocks,
  # with much less memory for about a third more computation. "preactivations": only activations, norms and shifts, with
  # about half the memory, and faster on TPU.
  config.model.remat = "none"

  config.data = ml_collections.ConfigDict()
  # A tfds name ("imagenet2012", "cifar10:3.*.*"), prepared as array_record by mlpvision.prepare ("mnist5k" and
  # "digit_scenes" prepare themselves); or a folder of images, "folder:/path", that contains SPLIT/CLASS/*.jpg or
  # CLASS/*.jpg; or a dataset of Hugging Face, "hf:OWNER/NAME" or "hf:/path" (docs/imagenet.md).
  # Segmentation: a dataset with label maps; or a folder with SPLIT/images/*.jpg and SPLIT/labels/*.png, or images/*.jpg
  # and labels/*.png. Detection: a dataset with boxes; or "coco:IMAGES_DIR,ANNOTATIONS.json", of which both parts may
  # contain {split}.
  config.data.name = "mnist5k"
  # Directory of the prepared tfds datasets. None: $TFDS_DATA_DIR or, if that is unset, ~/tensorflow_datasets.
  config.data.data_dir = ml_collections.config_dict.placeholder(str)
  # Splits in tfds notation, e.g. "train[:99%]". A folder without splits has only "train".
  config.data.train_split = "train"
  # The split that is evaluated.
  config.data.eval_split = "test"
  # Segmentation: a text file with the name of a class on each line, index 0 first, for datasets that do not name their
  # classes. "": the dataset's names; of a folder, those in its classes.txt.
  config.data.classes = ""
  # Segmentation: in the label maps, 0 marks pixels without a label and class i is stored as i + 1, as in ADE20K.
  config.data.reduce_zero_label = False
  # Segmentation, detection: the longest lengths in pixels of an image's longer and shorter side. Every image is resized
  # to fit them, keeping its aspect ratio. In the training of detection, augment.short_sides limit the shorter side.
  config.data.scale = (2048, 512)
  # Detection: shorter and longer side in pixels of the canvas that images are padded to, multiples of 32. Images that
  # are wider than high take a wide canvas, others a high one; a step has one of them.
  config.data.canvas = (800, 1344)
  # Detection: the number of objects that a training image has room for; of an image with more, the first ones are used.
  config.data.max_objects = 100
  # Input resolution: height and width of the model's images in pixels. For segmentation, of the training crops.
  config.data.image_size = 224
  # Global batch size: images per step, over all devices and hosts.
  config.data.batch_size = 128
  # Normalization: mean and standard deviation per channel, for pixels in [0, 1]. Default: ImageNet's.
  config.data.mean = (0.485, 0.456, 0.406)
  config.data.std = (0.229, 0.224, 0.225)
  # Loader processes per host, which read, decode and augment. 0 uses threads of the main process, which is cheaper but
  # does not scale to many cores. -1 starts one per core, and none on up to four cores.
  config.data.workers = -1
  # Reads in flight per host, for storage that answers slowly. Up to one per core that decodes, what decodes an image
  # also reads it; for more, threads read ahead of decoding. -1 is one per core, or 32 per core if the dataset is at
  # gs://, s3://, http:// or https://. Set it for a bucket or a file server that is mounted as a directory.
  config.data.reads = -1
  # Number of batches to load ahead.
  config.data.prefetch = 4

  # Augmentation of training images, in this order. Everything up to `repeats` runs on the host, the rest on the device.
  # Segmentation has its own, all on the host: resize_ratio, cat_max_ratio, flip, photometric. So has detection: flip,
  # and from short_sides to crop_sides.
  config.augment = ml_collections.ConfigDict()
  # How an image is cut to image_size x image_size: "random_resized" (random resized crop), "affine" (random rotation,
  # zoom and shift of the whole image) or "center" (center crop, as in evaluation).
  config.augment.crop = "random_resized"
  # "random_resized": range of the crop's area relative to the image's, drawn uniformly.
  config.augment.crop_scale = (0.08, 1.0)
  # "random_resized": range of the crop's aspect ratio (width over height), drawn log-uniformly.
  config.augment.crop_ratio = (0.75, 4 / 3)
  # "affine": largest rotation in degrees, in either direction.
  config.augment.rotation = 0.0
  # "affine": largest zoom as a fraction, in or out.
  config.augment.zoom = 0.0
  # "affine": largest shift in pixels of the resized image, in each direction.
  config.augment.shift = 0.0
  # RandAugment in timm's notation, e.g. "rand-m9-mstd0.5-inc1", or big_vision's, e.g. "randaug(2,15)"; "" disables it.
  config.augment.randaugment = ""
  # Segmentation: data.scale is multiplied by a number from this range, drawn uniformly.
  config.augment.resize_ratio = (0.5, 2.0)
  # Segmentation: a crop is drawn again, up to ten times, while one class has at least this share of its labeled pixels.
  # 1 accepts every crop.
  config.augment.cat_max_ratio = 0.75
  # Segmentation: random brightness, contrast, saturation and hue, as mmsegmentation's PhotoMetricDistortion.
  config.augment.photometric = False
  # Detection: the shorter side of an image, in pixels; one of these is drawn. data.scale limits the longer side.
  config.augment.short_sides = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
  # Detection: probability that an image is cropped first: resized to one of crop_short_sides, and cut to a height and a
  # width in the range crop_sides.
  config.augment.crop_probability = 0.5
  config.augment.crop_short_sides = (400, 500, 600)
  config.augment.crop_sides = (384, 600)
  # Repeated augmentation (Hoffer et al., arXiv 1901.09335): each image appears this many times in an epoch, which then
  # has proportionally fewer distinct images. 1 disables it.
  config.augment.repeats = 1
  # Probability of a horizontal flip.
  config.augment.flip = 0.5
  # Random erasing (arXiv 1708.04896): probability that a rectangle of an image is replaced with noise.
  config.augment.random_erasing = 0.0
  # Mixup alpha (arXiv 1710.09412), the parameter of the Beta distribution; 0 disables it. If mixup and cutmix are both
  # enabled, one of them is chosen at random per batch. Each image is mixed with its neighbor in the batch.
  config.augment.mixup = 0.0
  # Cutmix alpha (arXiv 1905.04899); 0 disables it.
  config.augment.cutmix = 0.0

  # Knowledge distillation: a classifier that teaches this one, in the same step. A run's workdir, a weight file or a
  # published name; "" for none.
  config.distill = ml_collections.ConfigDict()
  config.distill.teacher = ""
  # "soft": the teacher's probabilities instead of labels (arXiv 1503.02531, 2106.05237); "hard": its best class beside
  # the label (DeiT, arXiv 2012.12877, Eq. 3).
  config.distill.loss = "soft"
  # Divides the logits of teacher and student before their softmax in "soft".
  config.distill.temperature = 1.0

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
  # Sharpness-aware minimization (arXiv 2010.01412): updates with the gradient of where the loss is about the highest
  # within this distance of the parameters. Each step then takes two forward and backward passes. 0 disables it.
  config.optim.sam_rho = 0.0
  # Learning-rate multipliers: (regex of a parameter's path, factor) pairs. The first match applies; 0 freezes.
  # (("^(?!head)", 0.0),) trains the head alone.
  config.optim.lr_multipliers = ()
  # Layer-wise learning-rate decay, on top of the multipliers: each layer below the head has this times the learning
  # rate of the layer above. 1 disables it.
  config.optim.layer_decay = 1.0
  # On a NaN or infinite loss or gradient, "stop" ends the run; "skip" leaves the step out, and ends the run after ten
  # such steps in a row.
  config.optim.nonfinite = "stop"

  # The learning rate: linear warm-up from `start`, then "cosine", "linear" or "constant" down to `end`, or "step".
  config.optim.schedule = ml_collections.ConfigDict()
  config.optim.schedule.name = "cosine"
  config.optim.schedule.warmup = "0 steps"
  config.optim.schedule.start = 0.0
  config.optim.schedule.end = 0.0
  # Where the decay's clock starts: "warmup", at the warm-up's end; "zero", at step 0, as timm's schedulers do: the
  # rate then falls a little below the peak when the warm-up ends; "product", at step 0, and the warm-up multiplies the
  # decay instead of replacing it, as mmcv's hooks do.
  config.optim.schedule.clock = "warmup"
  # The rate changes once in this time, at its beginning: DeiT's once in "1 epoch".
  config.optim.schedule.every = "1 step"
  # How much later than due each rate comes. DeiT's and Swin's code set a rate after the epoch or step that it is for.
  config.optim.schedule.delay = "0 steps"
  # "step": when the rate is multiplied by `factor`, counted from step 0: ("8 epochs", "11 epochs").
  config.optim.schedule.milestones = ()
  config.optim.schedule.factor = 0.1

  # Evaluation on data.eval_split.
  config.eval = ml_collections.ConfigDict()
  # How often to evaluate while training, in steps or epochs.
  config.eval.every = "1 epoch"
  # Images per evaluation step. It need not divide the number of images: the last batch is padded and masked.
  config.eval.batch_size = 256
  # Center crop, timm's crop_pct: the image is resized so that its shorter side is image_size / crop_ratio, then the
  # central image_size x image_size is cut out.
  config.eval.crop_ratio = 0.875
  # Interpolation of the resize: Pillow's antialiased "bicubic" or "bilinear".
  config.eval.interpolation = "bicubic"

  # Segmentation: "whole" takes the image at once; "slide" moves a window of image_size x image_size over it, and
  # averages where windows overlap.
  config.eval.mode = "whole"
  # "slide": step of the window (down, right) in pixels.
  config.eval.stride = (341, 341)
  # Segmentation: ratios of data.scale at which an image is evaluated. The probabilities of all are averaged.
  config.eval.scales = (1.0,)
  # Segmentation: also evaluate the mirrored image at each ratio.
  config.eval.flip = False

  # Evaluators that run during training, by name. A name begins the metrics, "val/top1"; with an EMA they are reported
  # for it too, "val/ema_top1". Each entry has
  #   type: "accuracy" (the task's metrics: top-1, top-5, loss), "calibration" (expected calibration error) or "fewshot"
  #     (a linear classifier on the pooled features, from few images per class);
  #   every: in steps or epochs; "" is eval.every, "never" turns it off. All run at the end;
  #   name, split, train_split: another dataset, or other splits; "" are data.name, data.eval_split, data.train_split;
  #   shots, of fewshot: images per class; 0 takes all of train_split: the linear probe.
  config.evals = ml_collections.ConfigDict()
  config.evals.val = dict(type="accuracy", every="", name="", split="")
  config.evals.calibration = dict(type="calibration", every="never", name="", split="")
  config.evals.fewshot = dict(type="fewshot", every="never", name="", train_split="", split="", shots=(5, 10))

  # Checkpoints, in WORKDIR/checkpoints/STEP.
  config.checkpoint = ml_collections.ConfigDict()
  # How often to save: in steps or epochs, or in minutes or hours, which are checked whenever metrics are logged.
  config.checkpoint.every = "1 epoch"
  # Number of most recent checkpoints to keep.
  config.checkpoint.keep = 3
  # A metric of an evaluator, e.g. "val/top1": the best of the checkpoints saved at a step where it ran is kept too.
  config.checkpoint.best = ""

  # The device mesh: number of devices per axis. One axis can be -1, for all remaining devices.
  config.mesh = ml_collections.ConfigDict()
  # Data parallelism: the batch is split over data and fsdp.
  config.mesh.data = -1
  # Fully sharded data parallelism: large parameters, their EMA and optimizer state are sharded over fsdp.
  config.mesh.fsdp = 1
  # Each device of the data axis holds and updates a slice of the large parameters, their EMA and optimizer state, and
  # gathers the parameters once a step.
  config.mesh.shard_update = True
  # Tensor parallelism: the hidden channels of the channel MLPs are sharded over model.
  config.mesh.model = 1
  # Custom shardings, which take precedence: (regex, axes) pairs. The regex matches a parameter's path; axes has a mesh
  # axis or None per dimension. The first match applies. Example: ((r"head/kernel$", (None, "model")),).
  config.mesh.rules = ()

  # A process exits with a message if it completes no step for this long, because another process died or hangs.
  config.hang_timeout = "30 minutes"

  # "100:110" writes a trace of these steps to WORKDIR/profile, for TensorBoard's profile plugin and xprof; "": none.
  config.profile = ""

  # How often to log metrics, in steps or epochs.
  config.log_every = "50 steps"
  # Where metrics go beside WORKDIR/metrics.jsonl: "tensorboard", and the experiment trackers "wandb" and "mlflow",
  # which also get the config, sample images, the confusion matrix and the curves; see docs/faq.md.
  config.reporting = ml_collections.ConfigDict()
  config.reporting.writers = ("tensorboard",)
  # How often to print a line of progress, in seconds, minutes or hours, for runs whose steps are fast. "": whenever
  # metrics are logged, and every half minute in between.
  config.print_every = ""
  return config
