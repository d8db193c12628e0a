"""What a checkpoint contains, and reading it back; this file and checkpoints.py are the only ones that use orbax.

WORKDIR/checkpoints/STEP contains separate items: params, ema, stats and ema_stats (of models with batch normalization),
train (step and optimizer state) and meta (JSON: the config, the class names, the metric that decides which checkpoint
is the best). Weights can therefore be read alone, on any devices, without knowing the optimizer. meta also contains a
checksum per item and one of itself: a checkpoint that differs from the saved one in any bit is rejected as damaged.
What is not read back is not needed: orbax's file of metrics, its times and its shardings.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import os
from typing import Any

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mlpvision import checkpoint_meta as meta_lib, workdir as workdir_lib

FOLDER = "checkpoints"


def absolute(path: epath.PathLike) -> epath.Path:
  """A local or gs:// path, absolute."""
  return epath.Path(path if workdir_lib.is_remote(path) else os.path.abspath(path))  # orbax rejects relative paths


class StepFolders(ocp.path.step.NameFormat):
  """What is taken for a checkpoint, by orbax too: a complete directory, no link to one, named as `save` names it."""

  _all = ocp.path.step.standard_name_format()

  def build_name(self, step: int) -> str:
    return str(step)

  def find_all(self, base_path: epath.PathLike) -> Iterator[ocp.path.step.Metadata]:
    found = self._all.find_all(base_path)
    return (step for step in found if step.path.name == str(step.step) and not os.path.islink(step.path))

  def find_step(self, base_path: epath.PathLike, step: int) -> ocp.path.step.Metadata:
    return self._all.find_step(base_path, step)


def steps(directory: epath.Path) -> list[int]:
  """The steps of a directory's checkpoints."""
  return [found.step for found in StepFolders().find_all(directory)]


def read(
  manager: ocp.CheckpointManager, step: int, targets: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """({item: arrays}, meta) of a checkpoint. Raises some error if it is not what was saved.

  targets: {item: shapes, dtypes and shardings of its arrays}.
  """
  meta = meta_lib.read(manager.directory, step)
  args = {name: ocp.args.StandardRestore(item) for name, item in targets.items()}
  restored = manager.restore(step, args=ocp.args.Composite(**args))
  items, saved = {name: restored[name] for name in targets}, meta["checksums"]
  for name, value in jax.device_get(checksums(items)).items():
    if int(value) != saved[name]:
      raise OSError(f"{name} has the checksum {int(value)}, but {saved[name]} when it was saved")
  return items, meta


def handlers() -> dict[str, Any]:
  """{item: orbax's handler}."""
  arrays = {name: ocp.StandardCheckpointHandler() for name in meta_lib.ARRAYS}
  return {**arrays, "meta": ocp.JsonCheckpointHandler()}


def of_state(state: Any) -> dict[str, Any]:
  """{item: arrays} of a `TrainState`."""
  items = {"params": state.params, "train": {"step": state.step, "opt_state": state.opt_state}}
  others = {name: getattr(state, name) for name in ("ema", "stats", "ema_stats")}
  return items | {name: item for name, item in others.items() if item}


def report_damage(path: epath.Path, error: Exception) -> None:
  """Logs that a checkpoint cannot be used."""
  logging.error("CHECKPOINT %s IS DAMAGED and is not used: %s: %s", path, type(error).__name__, _first_line(error))


def report_others(directory: epath.Path, steps: Sequence[int]) -> None:
  """Names what looks like a checkpoint but is none: a file, or a link."""
  names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
  for name in sorted(name for name in names - set(map(str, steps)) if name.isascii() and name.isdecimal()):
    logging.error("%s IS NO CHECKPOINT and is not used: it is a file, a link or incomplete", directory / name)


def _first_line(error):
  return (str(error).splitlines() or [""])[0][:200]


def attempt(restore: Callable[..., Any], *arguments: Any) -> Any:
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
def checksums(items: Mapping[str, Any]) -> dict[str, jax.Array]:
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
