"""Starts a command in the test's own process: a process of its own takes seconds to import everything."""

import os
import runpy
import sys

from absl import app, flags  # noqa: F401  app has flags of its own, which must outlive the first command
from conftest import REPO


def here(program, arguments):
  """Runs train.py, or a module or a package as `python -m` would, in this process; returns the exit code."""
  argv, end_at_once, others = sys.argv, os._exit, _take_flags()
  sys.argv = [program, *arguments]
  os._exit = sys.exit  # which commands use where threads are left, as those of an earlier test may be
  try:
    if program.endswith(".py"):
      runpy.run_path(str(REPO / program), run_name="__main__")
    else:
      runpy.run_module(program, run_name="__main__", alter_sys=True)
  except SystemExit as end:
    return end.code or 0
  finally:
    sys.argv, os._exit = argv, end_at_once
    _take_flags()
    for name, flag in others.items():
      flags.FLAGS[name] = flag
  return 0


def _take_flags():
  """Takes out the flags of commands, which the next one may define again: those of one run here, or of one imported."""
  taken = {}
  for name in list(flags.FLAGS):
    module = flags.FLAGS.find_module_defining_flag(name)  # None for those that were put back
    if (
      module is None or name.startswith("config") or module.startswith((str(REPO), "mlpvision.", "python -m mlpvision"))
    ):
      taken[name] = flags.FLAGS[name]
      delattr(flags.FLAGS, name)
  return taken
