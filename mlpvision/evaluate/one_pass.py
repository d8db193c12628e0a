"""One pass over a split, on any mesh and any number of hosts."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec as P
import ml_collections

from mlpvision import sharding
from mlpvision.data import datasets, loader


def over(
  split: datasets.Split,
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  function: Callable[[Mapping[str, jax.Array]], Any],
) -> Iterator[Any]:
  """Yields function(batch), as NumPy arrays, for each batch of the split. Every process must call it.

  Args:
    split: of the dataset.
    config: task, data and eval are read.
    mesh: to compute on.
    function: compiled by `jit`; takes a global batch of `loader.eval_batches`, sharded over the mesh's batch axes, and
      must ignore rows with mask False.
  """
  processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
  batches = loader.eval_batches(split, config, device_count=sharding.batch_parts(mesh), **processes)
  for batch in sharding.put_batches(batches, mesh):
    yield jax.device_get(function(batch))


def jit(function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
  """jax.jit with a replicated result, which every process can read."""
  return jax.jit(function, out_shardings=NamedSharding(mesh, P()))
