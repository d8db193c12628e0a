"""Small settings for documented commands."""

import sys

from documented import REPO

sys.path.insert(0, str(REPO / "tests"))
from test_configs import SMALL_MODELS

# What takes the place of what readers fill in, the longer ones first.
_PLACEHOLDERS = {
  "init_from=gs://BUCKET/mixer_b16_in21k": "init_from=mixer_b16.goog_in21k",
  "imagenet_v2/matched-frequency": "folder:pictures",
  "imagenet21k/winter21_256": "folder:pictures",
  "hf:ILSVRC/imagenet-1k": "folder:pictures",
  "weights=runs/s2mlp_wide": "weights=runs/pictures",
  "folder:IMAGENET100": "folder:pictures",
  "folder:PATH": "folder:pictures",
  "(0.5, 0.75, 1.0, 1.25, 1.5, 1.75)": "(0.5, 1.0)",
  "gs://BUCKET": "bucket",
  "config=...": "config=configs/quickstart.py",
  "v5e:4x4,v5p:2x2x2": "v5e:2x2",
  "v5e:4x4": "v5e:2x2",
  "/shared/": "",
}
# What takes long to compile, and is part of the recipes that tests/test_configs.py trains.
_NO_MIXING = {f"--config.augment.{name}": 0 for name in ("mixup", "cutmix", "random_erasing")}
# Small settings, whatever the command says.
_SMALL = {
  "train.py": {
    "--config.duration": "2 steps",
    "--config.optim.schedule.warmup": "1 step",
    "--config.data.batch_size": 16,
    **_NO_MIXING,
  },
  "studies": {"--seeds": 1, "--duration": "1 epoch"},
  "mlpvision.preview": {"--images": 4, **_NO_MIXING},
  "mlpvision.plan": {"--config.data.batch_size": 16, **_NO_MIXING},
  "tests/fuzzing.py": {"--minutes": 0.05},
}


def small_arguments(command):
  """The command's arguments, filled in, with small settings."""
  arguments = []
  for argument in command.arguments:
    for placeholder, meaning in _PLACEHOLDERS.items():
      argument = argument.replace(placeholder, meaning)
    arguments.append(argument)
  added = dict(_SMALL.get(command.program, ()))
  arguments = [argument for argument in arguments if argument.partition("=")[0] not in added]
  text = " ".join(arguments)
  if command.program == "studies" and "--config=" in text:
    added |= {name: value for name, value in _SMALL["train.py"].items() if "duration" not in name}
  if "segmentation" in command.config or "detection" in command.config:  # on the runs of fixtures
    added |= {"--config.data.workers": 0}
  elif "--config=" in text and command.program != "mlpvision.cost":
    defaults = {"--config.data.workers": 0, "--config.eval.batch_size": 16, "--config.data.name": "folder:pictures"}
    if "quickstart" in text:
      defaults |= {"--config.model.num_blocks": 1, "--config.model.hidden_dim": 16, "--config.data.name": "mnist5k"}
    elif command.program == "mlpvision.plan":  # which knows the digits' number
      defaults |= {"--config.data.name": "mnist5k", "--config.data.image_size": 32}
    elif command.program != "mlpvision.evaluate" and "goog_in1k" not in text:  # whose weights are for 224 pixels
      defaults |= {"--config.data.image_size": 32}
    if "finetune.py:small" in text:
      defaults |= {"--config.accumulation_steps": 1}
    if command.config == "mixer_b16_finetune":
      defaults |= {"--config.model.tokens_mlp_dim": SMALL_MODELS["mixer"]["tokens_mlp_dim"]}
    added |= {name: value for name, value in defaults.items() if f"{name}=" not in text}
    if "folder:" not in f"{text} {added}":
      added.setdefault("--config.data.eval_split", "test[:16]")
  return [*arguments, *(f"{name}={value}" for name, value in added.items())]
