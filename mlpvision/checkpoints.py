"""Saving and restoring checkpoints; the only file that uses orbax.

WORKDIR/checkpoints/STEP contains separate items: params, ema, train (step and optimizer state) and meta (JSON: the
config and the class names). Weights can therefore be read alone, on any devices, without knowing the optimizer. meta
also contains a checksum per item: a checkpoint that differs from the saved one in any bit is rejected as damaged.
"""

from collections.abc import Mapping
import contextlib
import copy
import os
from typing import Any

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mlpvision.errors import UserError

_FOLDER = "checkpoints"


class Checkpoints:
  """Saves and restores the `TrainState` of one run. Every process must call every method, with the same steps."""

  def __init__(self, workdir: epath.PathLike, keep: int, best: str = "", direction: str = "max") -> None:
    """Keeps the `keep` most recent checkpoints of `workdir`, a local or gs:// directory.

    best: a metric, such as "val/top1", whose best checkpoint is also kept; direction: "max" or "min" is better.
    """
    self._directory, self._best = _absolute(workdir) / _FOLDER, best
    self._damaged = self._directory.parent / f"{_FOLDER}-damaged"
    logging.get_absl_logger().addFilter(_is_not_orbax_traceback)
    best_fn = (lambda metrics: metrics[best]) if best else None
    policies = [ocp.checkpoint_managers.LatestN(keep)]
    if best:
      rank = dict(get_metric_fn=best_fn, reverse=direction == "min", keep_checkpoints_without_metrics=False)
      policies.append(ocp.checkpoint_managers.BestN(n=1, **rank))
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
      best_fn=best_fn,
      best_mode=direction,
      cleanup_tmp_directories=True,
      step_prefix=None,
      enable_async_checkpointing=True,
    )
    self._manager, self._is_saving = self._open(), False

  def _open(self):
    return ocp.CheckpointManager(self._directory, options=self._options, item_handlers=_handlers())

  def read_meta(self) -> dict[str, Any] | None:
    """The newest readable meta, or None."""
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
      except Exception as error:
        logging.debug("meta of checkpoint %d: %s", step, error)
    return None

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
    evaluated: the parameters to evaluate, of an optimizer that trains others; `load_weights` reads these.

    Raises UserError if this save or the previous one failed, for example because the disk is full.
    """
    if step in self._manager.all_steps():
      return
    items = _items(state) | ({"evaluated": evaluated} if evaluated is not None else {})
    checksums = {name: int(value) for name, value in jax.device_get(_checksums(items)).items()}
    args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    # A copy, because it is written later, after the caller may have changed the original.
    args["meta"] = ocp.args.JsonSave(copy.deepcopy({**meta, "checksums": checksums}))
    metrics = {self._best: metrics[self._best]} if self._best and self._best in (metrics or {}) else None
    self._is_saving = True
    with self._readable_errors():
      self._manager.save(step, args=ocp.args.Composite(**args), metrics=metrics, force=True)

  def restore(self, abstract: Any) -> tuple[Any, dict[str, Any] | None]:
    """(state, meta) of the newest intact checkpoint, with the shardings of `abstract`; (None, None) if none was saved.

    Damaged ones are reported and moved to WORKDIR/checkpoints-damaged. Raises UserError if all are damaged.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      result = _attempt(self._restore_step, step, abstract)
      if not isinstance(result, Exception):
        return result
      _report_damage(self._directory / str(step), result)
      self._move_aside(step)
    if steps:
      raise UserError(
        f"all checkpoints in {self._directory} are damaged (moved to {self._damaged}): start again in a new --workdir"
      )
    return None, None

  def _restore_step(self, step, abstract):
    items, meta = _read(self._manager, step, _items(abstract))
    return abstract.replace(params=items["params"], ema=items.get("ema"), **items["train"]), meta

  def _move_aside(self, step):
    self._manager.close()
    if jax.process_index() == 0:
      self._damaged.mkdir(parents=True, exist_ok=True)
      target = self._damaged / str(step)
      if target.exists():
        target.rmtree()
      (self._directory / str(step)).rename(target)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"moved {step}")
    self._manager = self._open()

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
    step = self._manager.best_step()
    metrics = self._manager.metrics(step) if step is not None else None
    return (step, metrics[self._best]) if metrics else None

  @contextlib.contextmanager
  def _readable_errors(self):
    """Turns any error of writing, in any thread of orbax, into a UserError that names the newest intact checkpoint."""
    try:
      yield
    except jax.errors.JaxRuntimeError:
      raise  # a failure of a device, not of the disk
    except (ValueError, OSError, RuntimeError) as error:
      intact = _steps(self._directory)
      kept = f"The newest complete checkpoint is of step {max(intact)}" if intact else "No checkpoint is complete"
      full = " (disk full)" if "No space left" in str(error) or "quota" in str(error).lower() else ""
      raise UserError(
        f"a checkpoint could not be written to {self._directory}{full}: {_first_line(error)}\n"
        f"{kept}. Free some space there, then run the same command to resume."
      ) from error

  def close(self) -> None:
    """Waits for pending saves and closes the manager. Raises UserError if a save has failed."""
    self.wait()
    self._manager.close()


def load_weights(
  source: epath.PathLike, sharding: jax.sharding.Sharding | None = None, ema: bool = False
) -> tuple[dict[str, Any], dict[str, Any], int]:
  """Reads (params, meta, step), with the EMA as params if `ema`, without the optimizer state.

  source: a run's workdir (its newest intact checkpoint is read), or one checkpoint (WORKDIR/checkpoints/STEP).
  sharding: of every array; default: this process's first device.

  Raises UserError: no checkpoint, only damaged ones, or no EMA.
  """
  source = _absolute(source)
  if source.name.isdigit() and source.parent.name == _FOLDER and source.is_dir():
    directory, steps = source.parent, [int(source.name)]
  else:
    directory = source if source.name == _FOLDER else source / _FOLDER
    steps = sorted(_steps(directory), reverse=True)
  if not steps:
    raise UserError(f"no checkpoint in {source}: give a run's workdir or WORKDIR/{_FOLDER}/STEP")
  sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  item = "ema" if ema else "params"
  options = ocp.CheckpointManagerOptions(create=False)
  with ocp.CheckpointManager(directory, options=options, item_handlers=_handlers()) as manager:
    for step in steps:
      result = _attempt(_load_item, manager, step, item, sharding)
      if not isinstance(result, Exception):
        return (*result, step)
      if isinstance(result, UserError):
        raise result
      _report_damage(directory / str(step), result)
  raise UserError(f"{source}: no intact checkpoint")


def _absolute(path):
  return epath.Path(path if "://" in os.fspath(path) else os.path.abspath(path))  # orbax rejects relative paths


def _steps(directory):
  return [int(path.name) for path in directory.glob("*") if path.name.isdigit()] if directory.is_dir() else []


def _load_item(manager, step, item, sharding):
  metadata = manager.item_metadata(step)
  item = "evaluated" if item == "params" and metadata.get("evaluated") is not None else item
  tree = metadata.get(item)
  if tree is None:
    raise UserError(f"the checkpoint of step {step} has no {item}")
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
  items, meta = _read(manager, step, {item: abstract})
  return items[item], meta


def _read(manager, step, targets):
  """({item: arrays}, meta) of a checkpoint. Raises OSError if it is not what was saved."""
  args = {name: ocp.args.StandardRestore(item) for name, item in targets.items()}
  restored = manager.restore(step, args=ocp.args.Composite(**args, meta=ocp.args.JsonRestore()))
  items, saved = {name: restored[name] for name in targets}, restored.meta["checksums"]
  for name, value in jax.device_get(_checksums(items)).items():
    if int(value) != saved[name]:
      raise OSError(f"{name} has the checksum {int(value)}, but {saved[name]} when it was saved")
  return items, restored.meta


def _handlers():
  arrays = {name: ocp.StandardCheckpointHandler() for name in ("params", "ema", "evaluated", "train")}
  return {**arrays, "meta": ocp.JsonCheckpointHandler()}


def _items(state):
  items = {"params": state.params, "train": {"step": state.step, "opt_state": state.opt_state}}
  return items if state.ema is None else {**items, "ema": state.ema}


def _report_damage(path, error):
  logging.error("CHECKPOINT %s IS DAMAGED and is not used: %s: %s", path, type(error).__name__, _first_line(error))


def _is_not_orbax_traceback(record):
  """False for tracebacks that orbax logs before raising the same error, which `check_for_errors` reports readably."""
  return not (record.exc_info and "orbax" in record.pathname)


def _first_line(error):
  return (str(error).splitlines() or [""])[0][:200]


def _attempt(restore, *arguments):
  """What restore(*arguments) returns or raises; it is an exception on all processes if it is one on any of them."""
  try:
    result = restore(*arguments)
  except Exception as error:
    result = error
  if jax.process_count() > 1:
    failed = multihost_utils.process_allgather(np.array(isinstance(result, Exception)))
    if failed.any() and not isinstance(result, Exception):
      return OSError(f"process {int(failed.argmax())} could not read the checkpoint")
  return result


@jax.jit
def _checksums(items):
  """A uint32 per item, from the bits of its leaves: independent of the mesh, and different if any bit flips."""

  def leaf(x):
    if x.dtype == bool:
      return x.sum(dtype=jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    return bits.astype(jnp.uint32).sum(dtype=jnp.uint32)

  def item(tree):
    # A different odd factor for each leaf, so that swapping two leaves changes the sum.
    return sum((2 * i + 1) * leaf(x) for i, x in enumerate(jax.tree.leaves(tree)))

  return {name: item(tree).astype(jnp.uint32) for name, tree in items.items()}
