"""Trains a model, or resumes a run.

  mlpvision train --config=quickstart [--workdir=DIR] [--config.x.y=...]
  python train.py --config=configs/quickstart.py

The same command runs on a single device, and on a TPU pod if started on every host.
"""

import pathlib
import signal

from absl import flags
from ml_collections import config_flags

from mlpvision import commands, config as config_lib, durations

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The recipe, see configs/.", lock_config=True)
_WORKDIR = commands.define_path("workdir", None, "The run's directory; default: runs/NAME_OF_THE_CONFIG.")


def main(argv: list[str]) -> None:
  """Checks everything that needs no accelerator before starting JAX."""
  del argv
  # Until `StopRequest`: Python's KeyboardInterrupt would be lost in some imports.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  config = commands.read_config(_CONFIG)
  config_lib.check(config)
  from mlpvision import sharding
  from mlpvision.training import loop, stopping

  workdir = _WORKDIR.value or f"runs/{pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config'])).stem}"
  command = commands.as_typed()
  with stopping.StopRequest(command) as stop:
    stop.is_alone = not sharding.initialize_processes(durations.to_seconds(config.hang_timeout))
    result = loop.train_and_evaluate(config, workdir, stop)
  if not result.is_main:
    return
  if result.finished:
    print(f"done: {result.summary}\nsee {workdir}/curves.png")
  else:
    print(f"stopped after step {result.step}; to resume: {command}")


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  commands.run(main)
