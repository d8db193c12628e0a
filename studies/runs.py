"""Trains the runs of a study, one after the other; an interrupted study resumes."""

import json
import re

from etils import epath
import jax
import ml_collections

from mlpvision import config as config_lib
from mlpvision.errors import UserError
from mlpvision.training import loop
from studies.grids import Study

_FILE = "study.json"


def run(
  study: Study, base: ml_collections.ConfigDict, seeds: int, workdir: epath.PathLike, *, on_laptop: bool
) -> dict[str, list[float]]:
  """Trains every row with every seed.

  Args:
    study: a `grids.Study`.
    base: the config that rows change; it is copied.
    seeds: number of seeds, from 0.
    workdir: the runs' workdirs are WORKDIR/ROW/seed_K.
    on_laptop: whether rows use their `laptop` fields.

  Returns:
    {label: [top-1 of each seed, in percent]}

  Raises:
    UserError: a workdir contains a run of another config, or a run was stopped.
  """
  results = {}
  for row in study.rows:
    for seed in range(seeds):
      config = base.copy_and_resolve_references()
      with config.unlocked():
        config.seed = seed
        config.model.update(row.model(on_laptop))
      folder = epath.Path(workdir) / re.sub(r"\W+", "_", row.label) / f"seed_{seed}"
      done = sum(map(len, results.values()))
      print(f"\n[{done + 1}/{len(study.rows) * seeds}] {row.label}, seed {seed}", flush=True)
      results.setdefault(row.label, []).append(100 * _top1(config, folder))
  return results


def _top1(config, folder):
  """The top-1 of a run, which is started or resumed unless it is finished."""
  path = folder / _FILE
  if path.exists():
    saved = json.loads(path.read_text())
    differences = config_lib.differences(saved["config"], config_lib.to_json(config))
    if differences:
      raise UserError(f"{folder} contains a run of another config:\n  " + "\n  ".join(differences))
    return saved["top1"]
  result = loop.train_and_evaluate(config, str(folder))
  if not result.finished:
    raise UserError(f"{folder}: stopped after step {result.step}; the same command resumes")
  top1 = result.metrics["val/top1"]
  if result.is_main:
    path.write_text(json.dumps({"top1": top1, "config": config_lib.to_json(config)}))
  jax.clear_caches()  # the next model is another program
  return top1
