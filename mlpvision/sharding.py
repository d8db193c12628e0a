"""Devices, meshes, and where arrays lie on them."""

import os
import re

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import numpy as np

from mlpvision.errors import UserError

BATCH = P(("data", "fsdp"))  # the first dimension of every batch
_MIN_FSDP_SIZE = 2**16  # smaller leaves are not worth a gather

# Each is set by a launcher that starts several processes: JAX's own variables, Cloud TPU, GKE, SLURM, Open MPI.
_CLUSTER_SIGNS = {
  "JAX_COORDINATOR_ADDRESS": lambda value: True,
  "TPU_WORKER_HOSTNAMES": lambda value: "," in value,
  "MEGASCALE_COORDINATOR_ADDRESS": lambda value: True,
  "SLURM_NTASKS": lambda value: int(value) > 1,
  "OMPI_COMM_WORLD_SIZE": lambda value: int(value) > 1,
}


def initialize_processes():
  """Joins the other processes where a launcher started several; leaves a single process alone. Call it first.

  Without a launcher that JAX knows, set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
  """
  if any(name in os.environ and sign(os.environ[name]) for name, sign in _CLUSTER_SIGNS.items()):
    given = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
    jax.distributed.initialize(**{key: int(os.environ[name]) for key, name in given.items() if name in os.environ})


def make_mesh(data=-1, fsdp=1):
  """A mesh with axes (data, fsdp) over all devices of all processes; -1 stands for all that remain.

  Raises:
    UserError: the axes do not multiply to the number of devices.
  """
  count = jax.device_count()
  sizes = {"data": data, "fsdp": fsdp}
  free = [axis for axis, size in sizes.items() if size == -1]
  known = int(np.prod([size for size in sizes.values() if size != -1]))
  if len(free) > 1 or known < 1 or count % known or (not free and known != count):
    raise UserError(f"mesh data={data} x fsdp={fsdp} does not fit {count} devices; one of the two may be -1")
  for axis in free:
    sizes[axis] = count // known
  # Auto: the compiler places everything that no sharding names. (jax.make_mesh would default to Explicit.)
  return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def tree_shardings(tree, mesh, rules=()):
  """A NamedSharding per leaf of a tree of arrays or shapes.

  The first rule (regex, PartitionSpec) that is found in the leaf's path, such as "params/head/kernel", decides. Without
  one, a large leaf is cut along its largest dimension that the fsdp axis divides; all others are replicated.
  """

  def leaf(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for pattern, spec in rules:
      if re.search(pattern, name):
        return NamedSharding(mesh, spec)
    parts = mesh.shape["fsdp"]
    if parts > 1 and x.size >= _MIN_FSDP_SIZE:
      for i in sorted(range(x.ndim), key=lambda i: -x.shape[i]):
        if x.shape[i] % parts == 0:
          return NamedSharding(mesh, P(*[None] * i, "fsdp"))
    return NamedSharding(mesh, P())

  return jax.tree.map_with_path(leaf, tree)


def put_batch(batch, mesh):
  """This process's rows {name: numpy [b, ...]} -> global arrays [b * processes, ...], sharded over the batch axes."""
  sharding = NamedSharding(mesh, BATCH)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def put_batches(batches, mesh):
  """`put_batch` for each of an iterator's batches, one ahead, so that the transfer overlaps the computation."""
  ahead = None
  for batch in batches:
    current, ahead = ahead, put_batch(batch, mesh)
    if current is not None:
      yield current
  if ahead is not None:
    yield ahead
