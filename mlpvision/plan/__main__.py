"""Compiles a config's train step for TPUs or GPUs that are not attached, and predicts memory, traffic and time.

  python -m mlpvision.plan --config=configs/s2mlp_wide.py --topology=v5e:16x16
  python -m mlpvision.plan --config=configs/mixer_b16.py --topology=v5e:4x4,v5e:8x8,v5p:2x2x2 --fit
  python -m mlpvision.plan --config=configs/s2mlp_wide.py --topology=h100:8
  python -m mlpvision.plan --all --topology=v5e:4x4,v5p:2x2x2 --fit --json=plan.json --write=docs/performance.md

Needs libtpu (pip install 'mlpvision[plan]') or JAX's CUDA plugin (mlpvision[cuda]), and some minutes and GB of memory
per slice, but no dataset. Time is estimated for TPUs only. With --json, an interrupted call resumes: programs that the
file contains are not compiled again.
"""

import dataclasses
import datetime
import importlib
import os
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from mlpvision import commands, config as config_lib
from mlpvision.errors import UserError

_NO_RECIPES = ("default", "recipes", "finetune", "upernet_finetune")  # the last two are for a user's own images
_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
_ALL = flags.DEFINE_bool("all", False, "Instead of --config: every recipe of configs/.")
_TOPOLOGY = flags.DEFINE_list("topology", None, "Slices such as v5e:4x4 or h100:8, separated by commas.", required=True)
_FIT = flags.DEFINE_bool("fit", False, "If a step is out of memory, search for flags with which it fits.")
_KERNELS = flags.DEFINE_integer("kernels", 0, "Also list this many of the most expensive kernels.", lower_bound=0)
_IMAGES = flags.DEFINE_integer("images", None, "Training images of a dataset that is not prepared.", lower_bound=1)
_CLASSES = flags.DEFINE_integer("classes", None, "Classes of that dataset.", lower_bound=1)
_JSON = commands.define_path("json", None, "Write all results to this file, and reuse those that it contains.")
_WRITE = commands.define_path("write", None, "Write the table between the markers of this Markdown page.")


def main(argv: list[str]) -> None:
  """Compiles, prints and writes."""
  if argv[1:]:
    raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
  page = commands.of_repository("docs.tools.plan_page", "--write") if _WRITE.value else None
  configs = _configs()
  os.environ["JAX_PLATFORMS"] = "cpu"  # does not occupy an attached TPU
  os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # without a TPU, programs for TPUs cannot be read from a cache
  from mlpvision.plan import chips, plans, program, report

  # Mistakes are reported before anything is compiled.
  program.Store(_JSON.value)
  for topology in _TOPOLOGY.value:
    chips.devices(topology)
  options = dict(sizes=(_IMAGES.value, _CLASSES.value), with_fit=_FIT.value, store_path=_JSON.value)
  found, failed = [], []
  for name, config in configs:
    for topology in _TOPOLOGY.value:
      print(f"planning {name} on {topology} ...", flush=True)
      try:
        found.append(plans.make(name, config, topology, **options))
      except UserError as error:  # other configs and slices may work
        failed.append(f"{name} on {topology}: {error}")
        continue
      store = program.Store(_JSON.value)
      store.plans = [dataclasses.asdict(plan) for plan in found]
      store.write()
      print(report.text(found[-1], _KERNELS.value), flush=True)
      if page:
        command = " ".join(["python -m mlpvision.plan", *sys.argv[1:]])
        page.write(_WRITE.value, page.text(found, command, datetime.date.today()))
  if len(found) > 1:
    print(f"\n{report.table(found)}")
  if found:
    print(f"\n{report.LEGEND}", flush=True)
  if failed:
    raise UserError("\n".join(failed))


def _configs():
  """[(name, config), ...] of the configs to plan."""
  if _ALL.value == (_CONFIG.value is not None):
    raise UserError("choose what to plan: --config=FILE or --all")
  if _ALL.value:
    names = sorted(path.stem for path in pathlib.Path("configs").glob("*.py"))
    names = [name for name in names if name not in _NO_RECIPES and not name.startswith("quickstart")]
    if not names:
      raise UserError("--all needs the directory configs/: run the command in the repository's root")
    configs = [(name, importlib.import_module(f"configs.{name}").get_config()) for name in names]
  else:
    config = commands.read_config(_CONFIG)
    configs = [(pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem, config)]
  for _, config in configs:
    config_lib.check(config, dataset=False)
  return configs


if __name__ == "__main__":
  commands.run(main)
