"""Processes, meshes, and the sharding of arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import os
import re
import sys
import threading
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
import numpy as np

from mlpvision.errors import UserError

BATCH = P(("data", "fsdp"))  # the first dimension of every batch
_MAX_CONNECT_SECONDS = 300.0
_MIN_SHARDED_SIZE = 2**16  # smaller leaves are not worth an all-gather

# Set by launchers that start several processes: JAX's own variables, Cloud TPU, GKE, SLURM, Open MPI.
_CLUSTER_SIGNS = {
  "JAX_COORDINATOR_ADDRESS": lambda value: True,
  "TPU_WORKER_HOSTNAMES": lambda value: "," in value,
  "MEGASCALE_COORDINATOR_ADDRESS": lambda value: True,
  # Set by srun. Batch scripts and salloc shells also have the number of tasks, but are a single process.
  "SLURM_STEP_NODELIST": lambda value: int(os.environ.get("SLURM_NTASKS", "1")) > 1,
  "OMPI_COMM_WORLD_SIZE": lambda value: int(value) > 1,
}


def initialize_processes(seconds: float | None = None) -> bool:
  """Connects the processes if a launcher started several; returns whether. Call it before anything else of JAX.

  Without a launcher that JAX supports, set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

  seconds: ends the process with a message if the others do not connect for this long; at most five minutes, the
    default.

  Raises UserError: JAX_NUM_PROCESSES or JAX_PROCESS_ID is invalid.
  """
  if not any(name in os.environ and sign(os.environ[name]) for name, sign in _CLUSTER_SIGNS.items()):
    return False
  names = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
  given = {key: os.environ[name] for key, name in names.items() if name in os.environ}
  try:
    numbers = {key: int(value) for key, value in given.items()}
    if numbers and not 0 <= numbers.get("process_id", 0) < numbers.get("num_processes", sys.maxsize):
      raise ValueError
  except ValueError:
    shown = ", ".join(f"{names[key]}={value}" for key, value in given.items())
    raise UserError(f"{shown}: must be integers with 0 <= JAX_PROCESS_ID < JAX_NUM_PROCESSES") from None
  limit = min(seconds or _MAX_CONNECT_SECONDS, _MAX_CONNECT_SECONDS)
  # JAX would abort with a stack trace.
  timer = threading.Timer(limit, _give_up, (limit, numbers))
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(**numbers, initialization_timeout=int(limit) + 60)
  except RuntimeError as error:
    raise UserError(f"the processes cannot be connected: {str(error).splitlines()[0]}") from error
  finally:
    timer.cancel()
  return True


def _give_up(seconds, numbers):
  who = f" (this is process {numbers['process_id']} of {numbers['num_processes']})" if len(numbers) == 2 else ""
  print(
    f"error: not all processes connected within {seconds:.0f} s{who}. Start the same command on every host, with the"
    f" same coordinator ({os.environ.get('JAX_COORDINATOR_ADDRESS', 'found by JAX')}), which all of them must reach",
    file=sys.stderr,
    flush=True,
  )
  os._exit(os.EX_TEMPFAIL)


def make_mesh(data: int = -1, fsdp: int = 1, model: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh with axes (data, fsdp, model) over the devices of all processes.

  With several TPU slices, only the data axis crosses slices: the slower network between them then carries nothing but
  the all-reduce of the gradients.

  data, fsdp, model: sizes of the axes, of which one may be -1, for all remaining devices; devices: default: all.

  Raises UserError: the product of the axes is not the number of devices, or they do not fit the slices and processes.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  sizes = {"data": data, "fsdp": fsdp, "model": model}
  shown = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
  free = [axis for axis, size in sizes.items() if size == -1]
  known = int(np.prod([size for size in sizes.values() if size != -1]))
  if len(free) > 1 or known < 1 or count % known or (not free and known != count):
    raise UserError(f"mesh {shown} does not fit {count} devices; one of the three may be -1")
  for axis in free:
    sizes[axis] = count // known
  local = sum(device.process_index == devices[0].process_index for device in devices)
  if local % sizes["model"]:
    raise UserError(f"mesh {shown}: model must divide the {local} devices of a process")
  # Auto: the compiler chooses all shardings that are not given. jax.make_mesh would default to Explicit.
  axis_types = (AxisType.Auto,) * len(sizes)
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if slices == 1:
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=axis_types, devices=devices)
  if sizes["data"] % slices:
    raise UserError(f"mesh {shown}: the data axis must be a multiple of the {slices} slices")
  inside = (sizes["data"] // slices, sizes["fsdp"], sizes["model"])
  grid = mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1), devices, allow_split_physical_axes=True)
  return Mesh(grid, tuple(sizes), axis_types=axis_types)


def batch_parts(mesh: Mesh) -> int:
  """The number of shards of a batch: the devices along the data and fsdp axes."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def tree_shardings(
  tree: Any,
  mesh: Mesh,
  rules: Iterable[tuple[str, Sequence[Any]]] = (),
  model_axis: Iterable[tuple[str, tuple]] = (),
  over: tuple[str, ...] = ("fsdp",),
) -> Any:
  """A NamedSharding for each leaf of a tree of arrays or shapes.

  Rules are pairs (regex, axes); axes has a mesh axis, a tuple of them, or None for each dimension. The first one that
  matches the leaf's path, such as "params/head/kernel", determines its sharding. Without a match, the first match in
  `model_axis`, the model families' pairs (`models.Family`), shards its dimensions if the mesh has a model axis, and
  large leaves are also sharded over the axes `over` together, along the first remaining dimension that their product
  divides: the first is the slowest in memory, and for slices along another one the TPU compiler lays kernels' gradients
  out transposed, and copies the maps that they are computed from.

  Raises UserError: a rule names an unknown axis, or one that does not divide the dimension.
  """
  over = tuple(axis for axis in over if mesh.shape[axis] > 1)
  shards = int(np.prod([mesh.shape[axis] for axis in over]))

  def leaf(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for pattern, axes in rules:
      if re.search(pattern, name):
        return _sharding(mesh, P(*axes), name, x)
    # Some optimizers keep one number for a whole kernel under the kernel's name.
    pairs = model_axis if mesh.shape["model"] > 1 else ()
    cut = next((axes for pattern, axes in pairs if re.search(pattern, name) and len(axes) <= x.ndim), ())
    axes = [*cut, *[None] * (x.ndim - len(cut))]
    if shards > 1 and x.size >= _MIN_SHARDED_SIZE:
      i = next((i for i in range(x.ndim) if axes[i] is None and x.shape[i] % shards == 0), None)
      if i is not None:
        axes[i] = over if len(over) > 1 else over[0]
    return _sharding(mesh, P(*axes), name, x)

  return jax.tree.map_with_path(leaf, tree)


def _sharding(mesh, spec, name, x):
  try:
    sharding = NamedSharding(mesh, spec)
    sharding.shard_shape(x.shape)
  except ValueError as error:
    raise UserError(
      f"{name} {x.shape} cannot be sharded as {spec} over the mesh {dict(mesh.shape)}: {error}"
    ) from error
  return sharding


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """This process's rows {name: numpy [b, ...]} -> global arrays [b * processes, ...], sharded over the batch axes."""
  sharding = NamedSharding(mesh, BATCH)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def put_batches(batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
  """`put_batch` of each batch, one batch ahead, so that transfers overlap the computation."""
  ahead = None
  for batch in batches:
    current, ahead = ahead, put_batch(batch, mesh)
    if current is not None:
      yield current
  if ahead is not None:
    yield ahead
