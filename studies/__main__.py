"""Trains the rows of an ablation and compares them with the paper's: python -m studies s2mlp_directions

Without --config, it trains small models on the quickstart's digits. In a paper's setting, for example:
  python -m studies s2mlp_directions --config=configs/s2mlp_wide.py --config.data.name=folder:IMAGENET100
With as many multiply-accumulates for each number of blocks:
  python -m studies s2mlp_depth --budget=macs
The same command resumes an interrupted study.
"""

import datetime
import re
import shlex
import sys

from absl import app, flags
from ml_collections import config_flags

from mlpvision import commands

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A paper's setting; default: small models on digits.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Number of runs per setting.", lower_bound=1)
_DURATION = flags.DEFINE_string("duration", None, 'Duration of a run, e.g. "2 epochs"; default: the config\'s.')
_BUDGET = flags.DEFINE_string(
  "budget", None, 'Gives all models as many "parameters" or "macs", by their width: those of the config\'s model, or an'
  ' amount, "macs:4.2M".'
)  # fmt: skip
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
  from studies import budget as budget_lib, report, runs

  sharding.initialize_processes()
  counts = None
  if _BUDGET.value or study.budget:
    budget = budget_lib.parse(_BUDGET.value or study.budget)
    study, counts = budget_lib.fit(study, config.model, budget, config.data.image_size, on_laptop=on_laptop)
    if _BUDGET.value:
      name = f"{name}_{re.sub(r'[^a-zA-Z0-9]+', '_', _BUDGET.value)}"
  workdir = _WORKDIR.value or f"runs/studies/{name}"
  results = runs.run(study, config, _SEEDS.value, workdir, on_laptop=on_laptop)
  if jax.process_index() == 0:
    command = f"python -m studies {shlex.join(sys.argv[1:])}"
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    made_by = f"`{command}`, {config.duration} a run, on {devices}, {datetime.date.today()}."
    images = f"{config.data.name}:{config.data.eval_split}"
    caveat = study.caveat if on_laptop and not _DURATION.value else ""
    facts = dict(images=images, made_by=made_by, caveat=caveat, counts=counts)
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
