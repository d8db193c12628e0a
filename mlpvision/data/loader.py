"""Host batches by index, with grain. The first step is a loader's only state.

Batches follow the global order without gaps, across epochs. Each host loads its rows of each global batch, so the
images of a step do not depend on the number of hosts, workers or reads.
"""

from collections import deque
from collections.abc import Iterator
import concurrent.futures
import dataclasses
import functools
import itertools
import os
import sys

import grain
import ml_collections
import numpy as np

from mlpvision.data import datasets, detection_rows, notes, reads, resizing, rows, transforms, workers
from mlpvision.data.batches import Batches
from mlpvision.data.order import Order, OrientedOrder
from mlpvision.errors import UserError

_ENDLESS = sys.maxsize // 2  # rows of a run; grain adds to it
_TRIES = 10  # to find a readable replacement, before the dataset counts as broken
# Remote storage, for each core: a core decodes about 500 images of ImageNet's size a second, and a read takes 30 ms, so
# 15 wait on average. Twice as many, because 16 were measured to leave a tenth of the time without work.
_READS_PER_DECODER = 32


def train_batches(
  split: datasets.Split,
  config: ml_collections.ConfigDict,
  *,
  start_step: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """This host's training batches, from batch `start_step` on, without end.

  config: task, data, augment, eval and seed are read.

  A batch has the task's stacked rows plus "replaced": bool [b], b = batch_size / hosts. For classification,
  {"image": uint8 [b, size, size, 3], "label": int32 [b], "replaced": bool [b]}. Where `replaced` is True, the image
  could not be read or decoded and was replaced by another one.
  """
  resizing.say_if_slow()
  order, size = _order(split, config), config.data.batch_size // process_count
  split = _ahead(split, config)
  load = functools.partial(_load_train, split=split, order=order, task_rows=rows.of(config))
  examples = grain.MapDataset.range(_ENDLESS).seed(config.seed).random_map(load)
  first, count = start_step * process_count + process_index, _ENDLESS // (size * process_count) - start_step
  return _iterate(Batches(examples, order, split.source, size, count, first, process_count), config)


def image_indices(split: datasets.Split, config: ml_collections.ConfigDict, step: int) -> np.ndarray:
  """Indices of a step's images in the split, over all hosts, before any replacement: int [batch_size]."""
  order, batch_size = _order(split, config), config.data.batch_size
  return np.array([order(step * batch_size + row) for row in range(batch_size)])


def canvas_of_step(split: datasets.Split, config: ml_collections.ConfigDict, step: int) -> tuple[int, int]:
  """(height, width) of the images of a step's batch, for a task whose canvases have two orientations: detection."""
  shorter, longer = sorted(map(int, config.data.canvas))
  return (shorter, longer) if _order(split, config).is_wide(step) else (longer, shorter)


def eval_batches(
  split: datasets.Split,
  config: ml_collections.ConfigDict,
  *,
  device_count: int = 1,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """This host's part of one pass over the split, in order. All hosts get batches of the same shapes, and as many.

  A batch has the task's stacked rows plus "mask": bool [b], which is False for padding and for images without a label.
  The batch size is rounded up to a multiple of device_count, the number of devices of all hosts. If the split has
  several labels per image, classification's "label" is bool [b, classes]. If rows have several shapes, the batches of
  one shape follow those of another (`rows.Rows.groups`), each in order. Other arguments as `train_batches`.

  Raises UserError: an image cannot be read; the message has its split, index and file name.
  """
  size = -(-config.eval.batch_size // device_count) * device_count // process_count
  task_rows, order, parts = rows.of(config), _InGroups(), []
  groups, split = task_rows.groups(split), _ahead(split, config)
  for indices, blank in groups:
    length = -(-len(indices) // (size * process_count)) * size * process_count
    order.groups.append((indices, length))
    load = functools.partial(_load_eval, split=split, task_rows=task_rows, indices=indices, blank=blank)
    parts.append(grain.MapDataset.range(length).map(load))
  examples = grain.MapDataset.concatenate(parts)
  count = len(examples) // (size * process_count)
  return _iterate(Batches(examples, order, split.source, size, count, process_index, process_count), config)


def _order(split, config):
  if split.task == "detection":
    return _oriented_order(split, tuple(config.data.canvas), config.seed, config.data.batch_size)
  return Order(len(split), seed=config.seed, batch_size=config.data.batch_size, repeats=config.augment.repeats)


@functools.lru_cache(maxsize=2)  # `canvas_of_step` is asked for every step
def _oriented_order(split, canvas, seed, batch_size):
  return OrientedOrder(detection_rows.is_wide(split.source.sizes, canvas), seed=seed, batch_size=batch_size)


def _load_train(position, rng, *, split, order, task_rows):
  index, replaced = order(position), False
  for _ in range(_TRIES):
    example = {}
    try:
      example = split.source[index]
      row = task_rows.train(example, rng, split)
      return {**row, "replaced": np.bool_(replaced)}
    except transforms.ImageError as error:
      notes.warn(f"warning: replaced by another image: {_describe(split, index, example)}: {error}")
      index, replaced = order.replacement(index, rng), True
    except UserError as error:
      if not example:  # the source has said what is wrong, and where
        raise
      raise UserError(f"{_describe(split, index, example)}: {error}") from error
  raise UserError(f"{split.name}: {_TRIES} images in a row could not be read; check the dataset")


def _load_eval(position, *, split, task_rows, indices, blank):
  row, example = None, {}
  try:
    if position < len(indices):
      index = int(indices[position])
      example = split.source[index]
      row = task_rows.evaluation(example, split)
  except UserError as error:
    raise UserError(
      f"{_describe(split, index, example)}: {error}. Repair or remove it: evaluation skips no image"
    ) from error
  return {**(blank if row is None else row), "mask": np.bool_(row is not None)}


def _describe(split, index, example):
  name = example.get("file_name", b"")
  name = name.decode(errors="replace") if isinstance(name, bytes) else name
  return f"image {index} of {split.name}{name and f' ({name})'}"


def num_workers(config: ml_collections.ConfigDict) -> int:
  """The number of worker processes: config.data.workers; -1 is none on up to four cores, else one per core.

  Decoding releases the GIL, but the code around it does not: threads are faster on up to about four cores.
  """
  return config.data.workers if config.data.workers >= 0 else 0 if _cores() <= 4 else _cores()


def num_reads(config: ml_collections.ConfigDict, *, remote: bool | None = None) -> int:
  """The number of reads in flight: config.data.reads; -1 is one per core that decodes, 32 of remote storage.

  remote: whether storage is; default: as the dataset's path says.
  """
  given, decoders = config.data.get("reads", -1), num_workers(config) or _cores()
  remote = datasets.is_remote(config.data) if remote is None else remote
  return given if given > 0 else decoders * (_READS_PER_DECODER if remote else 1)


def _cores():
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _ahead(split, config):
  """The split with a source that reads ahead, in each process that decodes. Whatever decodes reads for itself, too."""
  total, processes = num_reads(config), num_workers(config)
  threads = -(-total // max(1, processes)) if total > (processes or _cores()) else 0
  return dataclasses.replace(split, source=reads.Ahead(split.source, threads))


@dataclasses.dataclass(frozen=True)
class _InGroups:
  """Position -> index, or None where rows are blank, of groups (indices, number of rows) one after another."""

  groups: list = dataclasses.field(default_factory=list)

  def __call__(self, position):
    for indices, length in self.groups:
      if position < length:
        return int(indices[position]) if position < len(indices) else None
      position -= length
    raise IndexError


def _iterate(batches, config):
  # What is read ahead belongs to batches that are in work.
  ahead = max(1, config.data.prefetch, -(-2 * batches.source.threads // batches.size))
  count = num_workers(config)
  return workers.iterate(batches, count, ahead) if count else _in_threads(batches, ahead)


def _in_threads(batches, ahead):
  # Each thread loads a whole batch; more threads than cores would only use more memory.
  pool = concurrent.futures.ThreadPoolExecutor(min(os.cpu_count(), ahead), thread_name_prefix="load")
  numbers, dealt = iter(range(batches.count)), deque()

  def deal():
    for number in itertools.islice(numbers, ahead - len(dealt)):
      batches.expect(batches.positions(number))
      dealt.append(pool.submit(batches.load, number))

  try:
    deal()
    while dealt:
      batch = dealt.popleft()
      deal()
      yield batch.result()
  finally:
    pool.shutdown(wait=False, cancel_futures=True)
    batches.source.close()
