"""Trains a table of a paper and writes it beside the paper's numbers: python -m studies s2mlp_directions

Without --config: small models on the quickstart's digits, for a laptop. In the papers' own setting, for example
  python -m studies s2mlp_directions --config=configs/s2mlp_wide.py --config.data.name=folder:IMAGENET100
A study that was interrupted goes on where it was.
"""

import datetime
import shlex
import sys

from absl import app, flags
from ml_collections import config_flags

from mlpvision import commands

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The papers' setting; default: a laptop's.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of every setting.", lower_bound=1)
_DURATION = flags.DEFINE_string("duration", None, 'Of a run, e.g. "2 epochs"; default: the config\'s.')
_WORKDIR = flags.DEFINE_string("workdir", None, "Of the runs; default: runs/studies/NAME.")
_OUTPUT = flags.DEFINE_string("output", "docs/studies", "A directory for the table, the picture and the JSON.")


def main(argv: list[str]) -> None:
  """Runs the study that is named, and writes it down."""
  from studies import grids

  if len(argv) != 2 or argv[1] not in grids.STUDIES:
    raise app.UsageError(f"name one study: {', '.join(grids.STUDIES)}")
  name, study = argv[1], grids.STUDIES[argv[1]]
  on_laptop = _CONFIG.value is None
  config = commands.read_config(_CONFIG) if not on_laptop else _laptop(study)
  if _DURATION.value:
    config.duration = config.eval.every = _DURATION.value
  import jax

  from mlpvision import sharding
  from studies import report, runs

  sharding.initialize_processes()
  workdir = _WORKDIR.value or f"runs/studies/{name}"
  results = runs.run(study, config, _SEEDS.value, workdir, on_laptop=on_laptop)
  if jax.process_index() == 0:
    command = f"python -m studies {shlex.join(sys.argv[1:])}"
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    made_by = f"`{command}`, {config.duration} a run, on {devices}, {datetime.date.today()}."
    images = f"{config.data.name}:{config.data.eval_split}"
    print(report.write(name, study, results, _OUTPUT.value, images=images, made_by=made_by))


def _laptop(study):
  from configs import quickstart  # beside the package: studies are run from the repository
  from studies import grids

  config = quickstart.get_config()
  grids.quickstart(config)
  with config.unlocked():
    config.model = dict(dtype="float32", drop_path=0.0, dropout=0.0, remat=config.model.remat, **study.laptop)
  return config


if __name__ == "__main__":
  commands.run(main)
