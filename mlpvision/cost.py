"""Counts parameters and multiply-accumulates of a config's model, or of all variants for docs/models.md.

python -m mlpvision.cost --config=configs/s2mlp_wide.py
python -m mlpvision.cost --write=docs/models.md
"""

import pathlib

from absl import app, flags
from ml_collections import config_flags

from mlpvision import commands

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The config whose model is counted.")
_CLASSES = flags.DEFINE_integer("classes", 1000, "Number of classes of the head.")
_WRITE = commands.define_path("write", None, "Write the page of all variants to this file; in the repository only.")


def main(argv: list[str]) -> None:
  """Counts and prints, or writes."""
  del argv
  if _WRITE.value:
    page = commands.of_repository("docs.tools.models_page", "--write")
    pathlib.Path(_WRITE.value).write_text(page.text(page.count()))
    return
  config = commands.read_config(_CONFIG)
  if config is None:
    raise app.UsageError("--config=FILE or --write=FILE is missing")
  from mlpvision import tasks
  from mlpvision.models import cost

  found = cost.count(tasks.make_model(config, _CLASSES.value), config.data.image_size)
  print(f"{config.model.name} at {config.data.image_size} pixels, {_CLASSES.value:,} classes:")
  print(f"  parameters          {found['parameters']:>15,}\n  multiply-accumulates{found['macs']:>15,}")


if __name__ == "__main__":
  commands.run(main)
