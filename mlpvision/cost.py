"""Parameters and multiply-accumulates: of a config's model, or of all variants beside the papers' figures.

python -m mlpvision.cost --config=configs/s2mlp_wide.py
python -m mlpvision.cost --write=docs/models.md
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from mlpvision import commands

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Whose model to count.")
_CLASSES = flags.DEFINE_integer("classes", 1000, "Width of the head, which is the dataset's number of classes.")
_WRITE = flags.DEFINE_string("write", None, "Write the table of all variants to this Markdown file.")

_HEADER = """# Models

Written by `python -m mlpvision.cost --write=docs/models.md`; all sizes, here and in the drawings, are taken from the
models themselves.

## Blocks

A Mixer's block mixes places by an MLP across all patches. S²-MLP has no such weights: a shift moves each quarter of the
channels by one patch, and the Dense that follows mixes what has come together. AS-MLP shifts along rows and columns, by
up to two places either way, in four stages of falling resolution. Dense is a linear layer over channels, the same at
every place; drop path stands at the end of each branch, before +.

![Mixer-B/16, its block, token and channel mixing](images/mixer.png)

![S²-MLP-wide, its block, the spatial shift](images/s2mlp.png)

![AS-MLP-T, its block, the axial shift](images/asmlp.png)

*Drawn by `python -m mlpvision.draw architecture s2mlp --output=docs/images/s2mlp.png`, and so on.*

The command draws other pictures too: what a shift does to a picture, what a trained model sees in it, and which of its
pixels matter for the class:

    python -m mlpvision.draw shifts photo.png --output=shifts.png
    python -m mlpvision.draw features --weights=runs/quickstart photo.png --output=features.png
    python -m mlpvision.draw saliency --weights=runs/quickstart photo.png --output=saliency.png
    python -m mlpvision.draw published --output=published.png

## Sizes

Parameters are with a head of 1,000 classes, multiply-accumulates (MACs; what the papers call FLOPs) of one image, and
beside them what the papers print. The accuracies are the papers' for ImageNet-1K: none has been reproduced here yet.

| model | image | parameters | MACs | paper: parameters (M) | paper: FLOPs (G) | paper: top-1 (%) | source | note |
|---|---|---|---|---|---|---|---|---|
"""


def table() -> str:
  """The whole of docs/models.md."""
  from mlpvision import models
  from mlpvision.models import cost, published

  lines = []
  for row in published.ROWS:
    found = cost.count(models.create(row.name), row.image_size)
    printed = " | ".join(text or "–" for text in (row.parameters, row.macs, row.top1, row.source))
    counted = f"{found['parameters']:,} | {found['macs'] / 1e9:.3f} G"
    lines.append(f"| `{row.name}` | {row.image_size} | {counted} | {printed} | {row.note} |\n")
  return _HEADER + "".join(lines)


def main(argv: list[str]) -> None:
  """Counts and prints, or writes."""
  del argv
  if _WRITE.value:
    pathlib.Path(_WRITE.value).write_text(table())
    return
  config = commands.read_config(_CONFIG)
  if config is None:
    raise app.UsageError("--config or --write")
  from mlpvision.models import cost
  from mlpvision.training.setup import make_model

  found = cost.count(make_model(config.model, _CLASSES.value), config.data.image_size)
  print(f"{config.model.name} at {config.data.image_size} pixels, {_CLASSES.value:,} classes:")
  print(f"  parameters          {found['parameters']:>15,}\n  multiply-accumulates{found['macs']:>15,}")


if __name__ == "__main__":
  commands.run(main)
