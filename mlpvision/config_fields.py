"""A row for each config field: the values that it may have, and which fields a resumed run may change."""

from mlpvision import config_values as values, durations
from mlpvision.data import rows

_AXIS = values.integer(lambda x: x == -1 or x >= 1, "must be a positive integer, or -1 for all remaining devices")
_WRITERS = ("tensorboard", "wandb", "mlflow")


def _is_side(x):
  return 32 <= x <= 4096 and x % 32 == 0


# Fields that evaluation reads.
EVALUATION = {
  "seed": values.integer(lambda x: x >= 0, "must be an integer in [0, 2^32)"),
  "data.image_size": values.integer(lambda x: 1 <= x <= 4096, "must be an integer in [1, 4096]"),
  "data.mean": values.numbers(
    3, lambda *x: all(0 <= v <= 1 for v in x), "must be 3 numbers in [0, 1], for pixels in [0, 1]"
  ),
  "data.std": values.numbers(
    3, lambda *x: all(1e-4 <= v <= 1 for v in x), "must be 3 numbers in [1e-4, 1], for pixels in [0, 1]"
  ),
  "data.workers": values.integer(lambda x: x >= -1, "must be -1 (automatic), 0 or more"),
  "data.prefetch": values.COUNT,
  "eval.batch_size": values.COUNT,
  "eval.crop_ratio": values.number(lambda x: 0.1 <= x <= 1, "must be in [0.1, 1]"),
  "eval.interpolation": values.is_in("bicubic", "bilinear"),
}
# Those that the evaluation of segmentation reads too.
SEGMENTATION = {
  "data.scale": values.numbers(
    2, lambda *x: all(1 <= v <= 16384 for v in x), "must be 2 sides in pixels, in [1, 16384]"
  ),
  "data.reduce_zero_label": values.FLAG,
  "data.classes": values.TEXT,
  "eval.mode": values.is_in("whole", "slide"),
  "eval.stride": values.integers(1, 2**31, "must be 2 positive integers, in pixels", length=2),
  "eval.scales": (
    lambda x: values.is_tuple(x) and bool(x) and all(values.is_number(v) and 0.1 <= v <= 8 for v in x),
    "must be ratios in [0.1, 8], such as (0.5, 1.0)",
  ),
  "eval.flip": values.FLAG,
}
# Those that the evaluation of detection reads too.
DETECTION = {
  "data.scale": SEGMENTATION["data.scale"],
  "data.canvas": (
    lambda x: values.is_tuple(x) and len(x) == 2 and all(type(v) is int and _is_side(v) for v in x),
    "must be 2 multiples of 32 in pixels, up to 4096",
  ),
}
# A row for each field of configs/default.py, and for those of optim.kwargs that mean the same in all optimizers. "*" is
# any name. What depends on data, devices, the task or the model is checked where it is built, before the first step.
FIELDS = {
  "init_from": values.TEXT,
  "task": (lambda x: isinstance(x, str) and x in rows.ROWS, f"one of {', '.join(rows.ROWS)}"),
  "duration": values.duration(values.STEPS),
  "loss": values.NAME,  # the task has the names
  "label_smoothing": values.SHARE,
  "auxiliary_loss": values.NOT_NEGATIVE,
  "ema_decay": values.SHARE,
  "distill.teacher": values.TEXT,
  "distill.loss": values.is_in("soft", "hard"),
  "distill.temperature": values.POSITIVE,
  "accumulation_steps": values.COUNT,
  "model.name": values.NAME,
  "model.dtype": values.is_in("float32", "bfloat16"),
  "model.drop_path": values.SHARE,
  "model.dropout": values.SHARE,
  "model.remat": values.is_in("none", "block", "preactivations"),
  "data.name": values.NAME,
  "data.data_dir": (lambda x: x is None or isinstance(x, str), "a directory, or None"),
  "data.train_split": values.NAME,
  "data.reads": values.integer(lambda x: x == -1 or 1 <= x <= 65536, "must be -1 (automatic), or in [1, 65536]"),
  "data.eval_split": values.NAME,
  "data.batch_size": values.COUNT,
  "data.max_objects": values.integer(lambda x: 1 <= x <= 1000, "must be an integer in [1, 1000]"),
  "augment.resize_ratio": values.numbers(
    2, lambda low, high: 0.1 <= low <= high <= 8, "must be (low, high), in [0.1, 8]"
  ),
  "augment.cat_max_ratio": values.number(lambda x: 0 < x <= 1, "must be in (0, 1]; 1 accepts every crop"),
  "augment.photometric": values.FLAG,
  "augment.short_sides": values.integers(1, 4096, "must be lengths in pixels, such as (480, 800), up to 4096"),
  "augment.crop_probability": values.PROBABILITY,
  "augment.crop_short_sides": values.integers(
    1, 4096, "must be lengths in pixels, such as (400, 500, 600), up to 4096"
  ),
  "augment.crop_sides": values.numbers(
    2, lambda low, high: type(low) is type(high) is int and 1 <= low <= high, "must be (low, high) in pixels"
  ),
  "augment.crop": values.is_in("random_resized", "affine", "center"),
  "augment.crop_scale": values.numbers(2, lambda low, high: 0 < low <= high <= 1, "must be (low, high) in (0, 1]"),
  "augment.crop_ratio": values.numbers(2, lambda low, high: 0 < low <= high, "must be (low, high), both positive"),
  "augment.rotation": values.number(lambda x: 0 <= x <= 180, "must be in [0, 180] degrees"),
  "augment.zoom": values.SHARE,
  "augment.shift": values.NOT_NEGATIVE,
  "augment.randaugment": values.TEXT,
  "augment.repeats": values.COUNT,
  "augment.flip": values.PROBABILITY,
  "augment.random_erasing": values.PROBABILITY,
  "augment.mixup": values.NOT_NEGATIVE,
  "augment.cutmix": values.NOT_NEGATIVE,
  "optim.name": values.NAME,
  "optim.learning_rate": values.POSITIVE,
  "optim.weight_decay": values.NOT_NEGATIVE,
  "optim.decay_mask": values.TEXT,
  "optim.clip_norm": values.NOT_NEGATIVE,
  "optim.sam_rho": values.NOT_NEGATIVE,
  "optim.lr_multipliers": values.pairs(
    lambda factor: values.is_number(factor) and factor >= 0, "must be (regex, factor) pairs, with factors of 0 or more"
  ),
  "optim.kwargs.b1": values.SHARE,
  "optim.kwargs.b2": values.SHARE,
  "optim.kwargs.eps": values.NOT_NEGATIVE,
  "optim.kwargs.momentum": values.SHARE,
  "optim.layer_decay": values.number(lambda x: 0 < x <= 1, "must be in (0, 1]; 1 is none"),
  "optim.nonfinite": values.is_in("stop", "skip"),
  "optim.schedule.name": values.is_in("cosine", "linear", "step", "constant"),
  "optim.schedule.warmup": values.duration(values.STEPS, zero=True),
  "optim.schedule.start": values.NOT_NEGATIVE,
  "optim.schedule.end": values.NOT_NEGATIVE,
  "optim.schedule.clock": values.is_in("warmup", "zero", "product"),
  "optim.schedule.every": values.duration(values.STEPS),
  "optim.schedule.delay": values.duration(values.STEPS, zero=True),
  "optim.schedule.milestones": values.durations(values.STEPS),
  "optim.schedule.factor": values.number(lambda x: 0 < x <= 1, "must be in (0, 1]"),
  "eval.every": values.duration(values.STEPS),
  "evals.*.type": values.NAME,  # the evaluators have the names
  "evals.*.every": values.duration(values.STEPS, "", "never"),
  "evals.*.name": values.TEXT,
  "evals.*.split": values.TEXT,
  "evals.*.train_split": values.TEXT,
  "evals.*.shots": values.integers(0, 2**31, "must be numbers of images per class, such as (5, 10); 0 takes all"),
  "checkpoint.every": values.duration(values.STEPS + values.TIMES),
  "checkpoint.keep": values.COUNT,
  "checkpoint.best": values.TEXT,
  "mesh.data": _AXIS,
  "mesh.fsdp": _AXIS,
  "mesh.model": _AXIS,
  "mesh.shard_update": values.FLAG,
  "mesh.rules": values.pairs(lambda axes: values.is_tuple(axes), "must be (regex, axes) pairs"),
  "hang_timeout": values.duration(values.TIMES),
  "profile": (
    lambda x: isinstance(x, str) and (not x or durations.profiled_steps(x) is not None),
    'write "FIRST:LAST", two steps of the run, such as "100:110"',
  ),
  "log_every": values.duration(values.STEPS),
  "reporting.writers": (
    lambda x: values.is_tuple(x) and all(name in _WRITERS for name in x) and len(set(x)) == len(x),
    f'must be a tuple of {", ".join(map(repr, _WRITERS))}, such as ("tensorboard",)',
  ),
  "print_every": values.duration(("second", *values.TIMES), ""),
  **EVALUATION,
  **SEGMENTATION,
  **DETECTION,
}
# Of all other fields, which are options of models and optimizers.
OTHER = (lambda x: not isinstance(x, float) or values.is_number(x), "must be finite")

# Fields that may differ when a run is resumed: they change results by no more than rounding.
FREE = (
  "checkpoint",
  "data.data_dir",
  "data.prefetch",
  "data.reads",
  "data.workers",
  "eval",
  "evals",
  "hang_timeout",
  "log_every",
  "mesh",
  "model.remat",
  "print_every",
  "profile",
  "reporting",
)
