"""Trains a table of a paper and compares it with the paper's numbers: python -m studies s2mlp_directions

Without --config, it trains small models on the quickstart's digits. In a paper's setting, for example:
  python -m studies s2mlp_directions --config=configs/s2mlp_wide.py --config.data.name=folder:IMAGENET100
The same command resumes an interrupted study.
"""

import datetime
import shlex
import sys

from absl import app, flags
from ml_collections import config_flags

from mlpvision import commands

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A paper's setting; default: small models on digits.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Number of runs per setting.", lower_bound=1)
_DURATION = flags.DEFINE_string("duration", None, 'Duration of a run, e.g. "2 epochs"; default: the config\'s.')
_WORKDIR = commands.define_path("workdir", None, "Directory of the runs; default: runs/studies/NAME.")
_OUTPUT = commands.define_path("output", "docs/studies", "Directory of the table, the figure and the JSON file.")


def main(argv: list[str]) -> None:
  """Runs a study and writes its results."""
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
    caveat = study.caveat if on_laptop and not _DURATION.value else ""
    facts = dict(images=images, made_by=made_by, caveat=caveat)
    print(report.write(name, study, results, _OUTPUT.value, **facts))


def _laptop(study):
  from configs import quickstart
  from studies import grids

  config = quickstart.get_config()
  grids.quickstart(config)
  with config.unlocked():
    config.model = dict(dtype="float32", drop_path=0.0, dropout=0.0, remat=config.model.remat, **study.laptop)
  return config


if __name__ == "__main__":
  commands.run(main)
