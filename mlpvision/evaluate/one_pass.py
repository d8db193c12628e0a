"""One pass over a split, on any mesh and any number of hosts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
from typing import Any

from flax import linen as nn
import jax
from jax.sharding import NamedSharding, PartitionSpec as P
import ml_collections
import numpy as np

from mlpvision import heartbeat, sharding, tasks
from mlpvision.data import datasets, loader
from mlpvision.errors import UserError


def over(
  split: datasets.Split,
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  function: Callable[[Mapping[str, jax.Array]], Any],
  *,
  numbered: bool = False,
) -> Iterator[Any]:
  """Yields function(batch), as NumPy arrays, for each batch of the split. Every process must call it.

  config: task, data and eval are read.
  function: compiled by `jit`; takes a global batch of `loader.eval_batches`, sharded over the mesh's batch axes, and
    must ignore rows with mask False.
  numbered: batches also have "index": int32 [b], of the split's images; of classification.
  """
  processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
  batches = loader.eval_batches(split, config, device_count=sharding.batch_parts(mesh), **processes)
  if numbered:
    batches = _numbered(batches, **processes)
  for number, batch in enumerate(sharding.put_batches(batches, mesh), 1):
    yield jax.device_get(function(batch))
    heartbeat.beat(f"batch {number} of {split.name}")


def _numbered(batches, process_index, process_count):
  """This host's batches with the places of their rows, as `loader.eval_batches` deals them."""
  for number, batch in enumerate(batches):
    size = len(batch["mask"])
    start = (number * process_count + process_index) * size
    yield {**batch, "index": np.arange(start, start + size, dtype=np.int32)}


def jit(function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
  """jax.jit with a replicated result, which every process can read."""
  return jax.jit(function, out_shardings=NamedSharding(mesh, P()))


class Sums:
  """Base class of evaluators that add up their `partial(outputs, batch)`: sums over a batch's rows with mask True."""

  multi_label = False  # whether images may have several labels
  numbered = False  # whether batches have "index"

  def __init__(
    self,
    model: nn.Module,
    split: datasets.Split,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    classes: Sequence[int] | np.ndarray | None = None,
  ) -> None:
    """classes: int [k], the model's class for each label, see `evaluators.match_classes`; None if they are equal."""
    if split.multi_label and not self.multi_label:
      raise UserError(f"{type(self).__name__.lower()}: {split.name} has several labels per image")
    self.split, self.config, self.mesh, self.classes = split, config, mesh, classes

    def sums(variables, batch):
      outputs = tasks.of(config).outputs(functools.partial(model.apply, variables), batch, config)
      return self.partial(outputs, batch)

    self._sums = jit(sums, mesh)

  def totals(self, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The sums over the split, exact for any batch size."""
    total = None
    for sums in self.parts(variables):
      # In float64 or int64, so that the sum over all batches is exact.
      sums = jax.tree.map(
        lambda x: np.asarray(x, np.float64 if np.issubdtype(x.dtype, np.floating) else np.int64), sums
      )
      total = sums if total is None else jax.tree.map(np.add, total, sums)
    return total

  def parts(self, variables: Mapping[str, Any]) -> Iterator[Any]:
    """The sums over each batch."""
    compute = functools.partial(self._sums, variables)
    yield from over(self.split, self.config, self.mesh, compute, numbered=self.numbered)
