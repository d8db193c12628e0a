"""Experiment trackers beside TensorBoard, by their names in config.reporting.writers.

A tracker's class is opened with (identity, workdir, config, last_step) and has `identity`, `write_scalars`,
`write_picture` and `close`. WORKDIR/trackers.json keeps the identities, with which a resumed run continues.
"""

from collections.abc import Mapping, Sequence
import importlib
import importlib.util
import json
from typing import Any

from absl import logging
from etils import epath

from mlpvision import workdir as workdir_lib
from mlpvision.errors import UserError, printable

FILE = "trackers.json"
# {name: (module here, its class, libraries that it needs)}
_TRACKERS = {
  "wandb": ("wandb_run", "WandbRun", ("wandb",)),
  "mlflow": ("mlflow_run", "MlflowRun", ("mlflow", "sqlalchemy", "alembic")),
}


def chosen(writers: Sequence[str]) -> list[str]:
  """The trackers among config.reporting.writers."""
  return [name for name in writers if name in _TRACKERS]


def check_installed(writers: Sequence[str]) -> None:
  """Raises UserError if the library of a tracker is missing; imports none."""
  for name in chosen(writers):
    missing = [library for library in _TRACKERS[name][2] if not _is_installed(library)]
    if missing:
      raise UserError(
        f"reporting.writers: {name} needs {', '.join(missing)}, which is not installed: pip install 'mlpvision[{name}]'"
      )


def open_chosen(
  writers: Sequence[str], workdir: epath.PathLike, config: Mapping[str, Any], last_step: int
) -> list["Guarded"]:
  """Starts a run of each tracker, or continues the one that the workdir has.

  config: hyperparameters, as from `config.to_json`; last_step: of the metrics that the run has logged before.

  Raises UserError if a new run cannot be started. One that cannot be continued is reported, and training goes on.
  """
  path = epath.Path(workdir) / FILE
  saved, opened = _read(path), []
  for name in chosen(writers):
    module, tracker, _ = _TRACKERS[name]
    try:
      tracker = getattr(importlib.import_module(f"mlpvision.reporting.{module}"), tracker)
      found = tracker(saved.get(name), workdir, config, last_step)
    except Exception as error:  # of the library, of any kind
      if name not in saved:
        raise UserError(
          f"{name} cannot start a run: {_line(error)}.\nSee its documentation, or leave {name} out of reporting.writers"
        ) from error
      logging.warning("%s CANNOT CONTINUE its run %s, which gets no more metrics: %s", name, saved[name], _line(error))
      continue
    saved[name] = found.identity
    opened.append(Guarded(name, found))
  if opened:
    with workdir_lib.readable_errors(path):
      workdir_lib.replace(path, [json.dumps(saved).encode()])
  return opened


class Guarded:
  """A tracker whose errors do not end a run: the first one is logged."""

  def __init__(self, name: str, tracker: Any) -> None:
    self._name, self._tracker, self._has_warned = name, tracker, False

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Logs metrics of a step, unless the tracker has them."""
    self._try(self._tracker.write_scalars, step, scalars)

  def write_picture(self, step: int, name: str, path: epath.PathLike) -> None:
    """Logs a PNG file."""
    self._try(lambda: self._tracker.write_picture(step, name, epath.Path(path).read_bytes()))

  def close(self, outcome: str) -> None:
    """Ends the tracker's run. outcome: "finished", "stopped" by a signal, which can be resumed, or "failed"."""
    self._try(self._tracker.close, outcome)

  def _try(self, function, *arguments):
    try:
      function(*arguments)
    except Exception as error:  # of the library, of any kind
      if not self._has_warned:
        logging.warning("%s FAILS, and training goes on; metrics.jsonl has everything: %s", self._name, _line(error))
      self._has_warned = True


def _is_installed(library):
  try:
    return importlib.util.find_spec(library) is not None
  except ValueError:  # it is barred: sys.modules has None
    return False


def _read(path):
  try:
    saved = json.loads(path.read_text()) if path.exists() else {}
    return {name: value for name, value in saved.items() if isinstance(value, str)}
  except (OSError, ValueError, AttributeError) as error:
    raise UserError(f"{path} is damaged ({error}): remove it, and the trackers start new runs") from error


def _line(error):
  return printable((str(error).splitlines() or [""])[0][:300]) or type(error).__name__
