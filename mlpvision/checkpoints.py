"""Saving and restoring checkpoints; the only file that uses orbax.

WORKDIR/checkpoints/STEP contains separate items: params, ema, train (step and optimizer state) and meta (JSON: the
config and the class names). Weights can therefore be read alone, on any devices, without knowing the optimizer. meta
also contains a checksum per item: a checkpoint that differs from the saved one in any bit is rejected as damaged.
"""

from collections.abc import Mapping
import contextlib
import copy
import functools
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
    """
    Args:
      workdir: a local or gs:// directory.
      keep: number of most recent checkpoints to keep.
      best: a metric, such as "val/top1"; the checkpoint with its best value is kept as well.
      direction: "max" if larger values of that metric are better, else "min".
    """
    self._directory, self._best = _absolute(workdir) / _FOLDER, best
    logging.get_absl_logger().addFilter(_is_not_orbax_traceback)
    policies = [ocp.checkpoint_managers.LatestN(keep)]
    if best:
      rank = dict(get_metric_fn=lambda metrics: metrics[best], reverse=direction == "min")
      policies.append(ocp.checkpoint_managers.BestN(n=1, keep_checkpoints_without_metrics=False, **rank))
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
      best_fn=(lambda metrics: metrics[best]) if best else None,
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
    metrics: {name: float} of this state if it was evaluated; they determine the best checkpoint.
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
      result = _attempt(functools.partial(self._restore_step, step, abstract))
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
    targets = _items(abstract)
    args = {name: ocp.args.StandardRestore(item) for name, item in targets.items()}
    restored = self._manager.restore(step, args=ocp.args.Composite(**args, meta=ocp.args.JsonRestore()))
    items = {name: restored[name] for name in targets}
    _verify(items, restored.meta["checksums"])
    train = items["train"]
    state = dict(step=train["step"], params=items["params"], ema=items.get("ema"), opt_state=train["opt_state"])
    return abstract.replace(**state), restored.meta

  @property
  def _damaged(self):
    return self._directory.parent / f"{_FOLDER}-damaged"

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

  def reached_preemption(self, step: int) -> bool:
    """Whether the cluster asked a process to stop; all processes agree on the step. Call it at every step."""
    return self._manager.reached_preemption(step)

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
      intact = [int(path.name) for path in self._directory.glob("*") if path.name.isdigit()]
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


def is_saved(workdir: epath.PathLike) -> bool:
  """Whether `workdir` contains checkpoints, including damaged ones."""
  return bool(_steps(_absolute(workdir) / _FOLDER))


def load_weights(
  source: epath.PathLike, sharding: jax.sharding.Sharding | None = None, ema: bool = False
) -> tuple[dict[str, Any], dict[str, Any], int]:
  """Reads (params, meta, step) without the optimizer state.

  Args:
    source: a run's workdir (its newest intact checkpoint is read), or one checkpoint (WORKDIR/checkpoints/STEP).
    sharding: of every array; default: this process's first device.
    ema: read the EMA instead of the parameters.

  Raises:
    UserError: no checkpoint, only damaged ones, or no EMA.
  """
  source = _absolute(source)
  directory, steps = _find(source)
  sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  item = "ema" if ema else "params"
  options = ocp.CheckpointManagerOptions(create=False)
  with ocp.CheckpointManager(directory, options=options, item_handlers=_handlers()) as manager:
    for step in steps:
      result = _attempt(functools.partial(_load_item, manager, step, item, sharding))
      if not isinstance(result, Exception):
        return (*result, step)
      if isinstance(result, UserError):
        raise result
      _report_damage(directory / str(step), result)
  raise UserError(f"{source}: no intact checkpoint")


def _absolute(path):
  return epath.Path(path if "://" in os.fspath(path) else os.path.abspath(path))  # orbax rejects relative paths


def _find(source):
  if source.name.isdigit() and source.parent.name == _FOLDER and source.is_dir():
    return source.parent, [int(source.name)]
  directory = source if source.name == _FOLDER else source / _FOLDER
  steps = _steps(directory)
  if not steps:
    raise UserError(f"no checkpoint in {source}: give a run's workdir or WORKDIR/{_FOLDER}/STEP")
  return directory, sorted(steps, reverse=True)


def _steps(directory):
  return [int(path.name) for path in directory.glob("*") if path.name.isdigit()] if directory.is_dir() else []


def _load_item(manager, step, item, sharding):
  metadata = manager.item_metadata(step)
  item = "evaluated" if item == "params" and metadata.get("evaluated") is not None else item
  tree = metadata.get(item)
  if tree is None:
    raise UserError(f"the checkpoint of step {step} has no {item}")
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
  args = ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract), "meta": ocp.args.JsonRestore()})
  restored = manager.restore(step, args=args)
  _verify({item: restored[item]}, restored.meta["checksums"])
  return restored[item], restored.meta


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


def _attempt(restore):
  """The result or the exception of restore(); it is an exception on all processes if it is one on any of them."""
  try:
    result = restore()
  except Exception as error:
    result = error
  if jax.process_count() > 1:
    failed = multihost_utils.process_allgather(np.array(isinstance(result, Exception)))
    if failed.any() and not isinstance(result, Exception):
      return OSError(f"process {int(failed.argmax())} could not read the checkpoint")
  return result


def _verify(items, expected):
  found = jax.device_get(_checksums(items))
  for name, value in found.items():
    if int(value) != expected[name]:
      raise OSError(f"{name} has the checksum {int(value)}, but {expected[name]} when it was saved")


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
