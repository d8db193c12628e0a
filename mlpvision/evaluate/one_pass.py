"""One pass over a split, on any mesh and any number of hosts: all that looks at a whole split goes through it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_collections

from mlpvision import sharding
from mlpvision.data import datasets, loader


def over(
  split: datasets.Split,
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  function: Callable[[Mapping[str, jax.Array]], Any],
) -> Iterator[Any]:
  """function(batch) for every batch of the split, in order, as NumPy arrays. Every process calls it.

  Args:
    split: a datasets.Split.
    config: of a run; task, data and eval are read.
    mesh: to compute on.
    function: jitted; takes a global batch as `loader.eval_batches` describes it, sharded over the mesh's batch axes.
      Rows with mask False must not count. What it returns has to be replicated, or there is one process.

  Raises:
    UserError: an image cannot be read.
  """
  processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
  batches = loader.eval_batches(split, config, device_count=sharding.batch_parts(mesh), **processes)
  for batch in sharding.put_batches(batches, mesh):
    yield jax.device_get(function(batch))
