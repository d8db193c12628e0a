"""Saving and restoring checkpoints, with orbax; `checkpoint_items` says what they contain."""

from collections.abc import Mapping
import contextlib
import functools
import logging as python_logging
import os
import shutil
import sys
from typing import Any, Self

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import orbax.checkpoint as ocp

from mlpvision import checkpoint_items as items_lib, checkpoint_meta as meta_lib, workdir as workdir_lib
from mlpvision.errors import UserError


class Checkpoints:
  """Saves and restores the `TrainState` of one run. Every process must call every method, with the same steps."""

  def __init__(self, workdir: epath.PathLike, keep: int, best: str = "", direction: str = "max") -> None:
    """Keeps the `keep` most recent checkpoints of `workdir`, a local or gs:// directory.

    best: a metric, such as "val/top1", whose best checkpoint is also kept; direction: "max" or "min" is better.
    """
    self._directory, self._best = items_lib.absolute(workdir) / items_lib.FOLDER, best
    self._damaged = self._directory.parent / f"{items_lib.FOLDER}-damaged"
    self._sign = -1 if direction == "min" else 1
    # One error of a failed write is reported readably. These are its traceback, and errors that follow from it.
    logging.get_absl_logger().addFilter(_is_not_orbax_traceback)
    python_logging.getLogger("asyncio").addFilter(_is_retrieved)
    if getattr(sys.unraisablehook, "func", None) is not _report_unraisable:
      sys.unraisablehook = functools.partial(_report_unraisable, sys.unraisablehook)
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=_Preserve(keep, self._best_of),
      best_fn=(lambda metrics: metrics[best]) if best else None,  # makes orbax write its file of metrics
      cleanup_tmp_directories=True,
      step_name_format=items_lib.StepFolders(),
      lightweight_initialize=True,  # otherwise a damaged file of one step would keep all others from being read
      enable_async_checkpointing=True,
    )
    self._manager, self._is_saving = self._open(), False
    steps = self._manager.all_steps() if best else ()
    self._scores = {step: _attempt_locally(meta_lib.read_score, self._directory, step, best) for step in steps}

  def _open(self):
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
      return _Manager(self._directory, options=self._options, item_handlers=items_lib.handlers())
    except OSError as error:
      raise UserError(f"cannot use {self._directory}: {workdir_lib.reason(error)}") from error

  def _best_of(self, steps):
    """The step with the best score, the newest of equals; None if no step has one."""
    scored = [(self._sign * self._scores[step], step) for step in steps if self._scores.get(step) is not None]
    return max(scored)[1] if scored else None

  def read_meta(self) -> dict[str, Any] | None:
    """The newest intact meta, or None."""
    metas = (_attempt_locally(meta_lib.read, self._directory, step) for step in sorted(self._manager.all_steps())[::-1])
    return next((meta for meta in metas if meta is not None), None)

  def save(
    self,
    step: int,
    state: Any,
    meta: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    evaluated: Any = None,
  ) -> None:
    """Starts saving a `TrainState`; returns once the arrays are copied. Does nothing if the step is already saved.

    meta: a dict of JSON values.
    metrics: of this state if it was evaluated; they determine the best checkpoint.
    evaluated: the parameters to evaluate, of an optimizer that trains others; `load_variables` reads these.

    Raises UserError if this save or the previous one failed, for example because the disk is full.
    """
    if step in self._manager.all_steps():
      return
    items = items_lib.of_state(state) | ({"evaluated": evaluated} if evaluated is not None else {})
    checksums = {name: int(value) for name, value in jax.device_get(items_lib.checksums(items)).items()}
    args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    metrics = {self._best: float(metrics[self._best])} if self._best and self._best in (metrics or {}) else None
    args["meta"] = ocp.args.JsonSave(meta_lib.seal({**meta, "step": step, "metrics": metrics or {}}, checksums))
    self._scores[step] = meta_lib.as_score((metrics or {}).get(self._best))
    self._is_saving = True
    with self._readable_errors():
      self._make_room(step)
      self._manager.save(step, args=ocp.args.Composite(**args), metrics=metrics, force=True)

  def restore(self, abstract: Any) -> tuple[Any, dict[str, Any] | None]:
    """(state, meta) of the newest intact checkpoint, with the shardings of `abstract`; (None, None) if none was saved.

    Damaged ones are reported and moved to WORKDIR/checkpoints-damaged. Raises UserError if all are damaged.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    items_lib.report_others(self._directory, steps)
    for step in steps:
      result = items_lib.attempt(self._restore_step, step, abstract)
      if not isinstance(result, Exception):
        return result
      items_lib.report_damage(self._directory / str(step), result)
      self._move_aside(step)
    if steps:
      raise UserError(
        f"all checkpoints in {self._directory} are damaged (moved to {self._damaged}): start again in a new --workdir"
      )
    return None, None

  def _restore_step(self, step, abstract):
    items, meta = items_lib.read(self._manager, step, items_lib.of_state(abstract))
    train = items.pop("train")
    return abstract.replace(**items, **train), meta

  def _move_aside(self, step):
    self._manager.close()
    if jax.process_index() == 0:
      self._move_to_damaged(step)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"moved {step}")
    self._manager = self._open()

  def _make_room(self, step):
    """Moves away what has the name of a checkpoint but is none, such as a file, a link or an empty folder."""
    path = self._directory / str(step)
    if jax.process_index() == 0 and os.path.lexists(path):
      logging.error("%s is in the place of a checkpoint and is moved to %s", path, self._damaged)
      self._move_to_damaged(step)

  def _move_to_damaged(self, step):
    source, target = self._directory / str(step), self._damaged / str(step)
    try:
      self._damaged.mkdir(parents=True, exist_ok=True)
      if os.path.islink(target) or target.is_file():
        target.unlink()
      elif target.exists():
        target.rmtree()
      if workdir_lib.is_remote(source):
        source.rename(target)
      else:
        shutil.move(source, target)  # also to another disk, where `checkpoints` is a link to one
    except OSError as error:
      raise UserError(f"cannot move {source} to {self._damaged}: {workdir_lib.reason(error)}") from error

  def check_for_errors(self) -> None:
    """Raises UserError if an earlier save has failed. Call it at every step."""
    # The manager's own check does not work here: its thread has consumed the exception, and only waiting raises it.
    if self._is_saving and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> int | None:
    """Waits for pending saves; returns the newest saved step, or None. Raises UserError if a save has failed."""
    self._is_saving = False
    with self._readable_errors():
      self._manager.wait_until_finished()
    return self._manager.latest_step()

  def best_step(self) -> tuple[int, float] | None:
    """(step, value) of the best checkpoint, or None if none was saved with the metric."""
    step = self._best_of(self._manager.all_steps())
    return None if step is None else (step, self._scores[step])

  @contextlib.contextmanager
  def _readable_errors(self):
    """Turns any error of writing, in any thread of orbax, into a UserError that names the newest intact checkpoint."""
    try:
      yield
    except jax.errors.JaxRuntimeError:
      raise  # a failure of a device or of another process, not of the disk
    except (ValueError, OSError, RuntimeError) as error:
      intact = items_lib.steps(self._directory)
      kept = f"The newest complete checkpoint is of step {max(intact)}" if intact else "No checkpoint is complete"
      raise UserError(
        f"a checkpoint could not be written to {self._directory}: {workdir_lib.reason(error)}\n"
        f"{kept}. The same command resumes from there."
      ) from error

  def __enter__(self) -> Self:
    return self

  def __exit__(self, exception_type: type[BaseException] | None, exception: BaseException | None, _: object) -> None:
    """Completes a pending save where an error ends the run; that error is the one to report."""
    if isinstance(exception, Exception) and jax.process_count() == 1:  # other processes may be dead
      with contextlib.suppress(Exception):
        self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for pending saves and closes the manager. Raises UserError if a save has failed."""
    self.wait()
    self._manager.close()


def load_variables(
  source: epath.PathLike, sharding: jax.sharding.Sharding | None = None, ema: bool = False
) -> tuple[dict[str, Any], dict[str, Any], int]:
  """Reads (variables, meta, step), with the EMA if `ema`, without the optimizer state.

  variables: for `model.apply`: "params" and, of models with batch normalization, "batch_stats".

  source: a run's workdir (its newest intact checkpoint is read), or one checkpoint (WORKDIR/checkpoints/STEP).
  sharding: of every array; default: this process's first device.

  Raises UserError: no checkpoint, only damaged ones, or no EMA.
  """
  source = items_lib.absolute(source)
  if source.parent.name == items_lib.FOLDER and source.name in map(str, items_lib.steps(source.parent)):
    directory, steps = source.parent, [int(source.name)]
  else:
    directory = source if source.name == items_lib.FOLDER else source / items_lib.FOLDER
    steps = sorted(items_lib.steps(directory), reverse=True)
    items_lib.report_others(directory, steps)
  if not steps:
    raise UserError(f"no checkpoint in {source}: give a run's workdir or WORKDIR/{items_lib.FOLDER}/STEP")
  sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  options = dict(create=False, step_name_format=items_lib.StepFolders(), lightweight_initialize=True)
  options = ocp.CheckpointManagerOptions(**options)
  with ocp.CheckpointManager(directory, options=options, item_handlers=items_lib.handlers()) as manager:
    for step in steps:
      result = items_lib.attempt(_load_variables, manager, step, ema, sharding)
      if not isinstance(result, Exception):
        return (*result, step)
      if isinstance(result, UserError):
        raise result
      items_lib.report_damage(directory / str(step), result)
  raise UserError(f"{source}: no intact checkpoint")


class _Manager(ocp.CheckpointManager):
  def reached_preemption(self, step):
    """The loop asks JAX itself. Orbax would only measure times, which a lightweight start does not know, and fail."""
    return False


class _Preserve:
  """Orbax's policy: the `keep` newest checkpoints and the best one, which best_of(steps) names, remain."""

  def __init__(self, keep, best_of):
    self._keep, self._best_of = keep, best_of

  def should_preserve(self, checkpoints, *, context):
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    kept = {*sorted(steps)[-self._keep :], self._best_of(steps)}
    return [step in kept for step in steps]


def _attempt_locally(read, *arguments):
  """What read(*arguments) returns; None if it is damaged, which `restore` reports."""
  try:
    return read(*arguments)
  except Exception as error:
    logging.debug("%s: %s", arguments, error)
    return None


def _load_variables(manager, step, ema, sharding):
  saved = meta_lib.read(manager.directory, step)["checksums"]
  params, stats = ("ema", "ema_stats") if ema else ("evaluated" if "evaluated" in saved else "params", "stats")
  if params not in saved:
    raise UserError(f"the checkpoint of step {step} has no {params}")

  def abstract(item):
    # Not the manager's metadata, which are read from files of all items and of the metrics.
    tree = items_lib.handlers()[item].metadata(manager.directory / str(step) / item)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  items, meta = items_lib.read(manager, step, {item: abstract(item) for item in (params, stats) if item in saved})
  return {"params": items[params], **items.get(stats, {})}, meta


def _is_not_orbax_traceback(record):
  """False for tracebacks that orbax logs before raising the same error, which `check_for_errors` reports readably."""
  return not (record.exc_info and "orbax" in record.pathname)


def _is_retrieved(record):
  return "was never retrieved" not in record.getMessage()


def _report_unraisable(report, unraisable):
  """sys.unraisablehook, except for arrays that are written after the write of another failed and closed their loop."""
  if not isinstance(unraisable.exc_value, RuntimeError) or str(unraisable.exc_value) != "Event loop is closed":
    report(unraisable)
