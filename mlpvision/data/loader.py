"""Host batches by index, with grain. A loader's whole state is the step it starts at.

Batches follow the global order without gaps, across epochs. A host takes its rows out of each global batch, so the
images of a step do not depend on the number of hosts, nor on the number of workers.
"""

from collections.abc import Iterator
import functools
import os
import signal
import sys

from absl import flags
import grain
import ml_collections
import numpy as np

from mlpvision.data import datasets, rows, transforms
from mlpvision.data.order import Order
from mlpvision.errors import UserError

# For a training image, before the dataset counts as broken.
_TRIES = 10


def train_batches(
  split: datasets.Split,
  config: ml_collections.ConfigDict,
  *,
  start_step: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """This host's training batches from `start_step` on, without end.

  Args:
    split: datasets.Split.
    config: of a run; task, data, augment and seed are read.
    start_step: the first batch's index.
    process_index, process_count: this host among all.

  Returns:
    An iterator of the task's rows, stacked, and "replaced": bool [b], b = batch_size / hosts; for classification
    {"image": uint8 [b, size, size, 3], "label": int32 [b], "replaced": bool [b]}. Where an image could not be decoded,
    replaced is True and another one stands in its place.
  """
  count = config.data.batch_size // process_count
  load = functools.partial(_load_train, split=split, order=_order(split, config), task_rows=rows.of(config))
  dataset = grain.MapDataset.range(sys.maxsize).seed(config.seed).random_map(load).batch(count)
  return _iterate(dataset[start_step * process_count + process_index :: process_count], config)


def image_indices(split: datasets.Split, config: ml_collections.ConfigDict, step: int) -> np.ndarray:
  """Which images of the split a step was given, over all hosts: int [batch_size]. Replaced ones are not followed."""
  order, batch_size = _order(split, config), config.data.batch_size
  return np.array([order(step * batch_size + row) for row in range(batch_size)])


def eval_batches(
  split: datasets.Split,
  config: ml_collections.ConfigDict,
  *,
  device_count: int = 1,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """This host's part of one pass over the split, in order; all hosts get equally many batches of one shape.

  Args as `train_batches`. A batch has the task's rows, stacked, and "mask": bool [b]. Rows that fill the last batch up
  are zero and have mask False, and so have images without a label, which are not part of a score. The batch size is
  rounded up to a multiple of device_count, the number of devices over all hosts. For a split with several labels per
  image, classification's "label" is bool [b, classes].

  Raises:
    UserError: an image cannot be read or decoded: its dataset, split, index and file name. It is skipped nowhere.
  """
  count = -(-config.eval.batch_size // device_count) * device_count // process_count
  num_batches = -(-len(split) // (count * process_count))
  load = functools.partial(_load_eval, split=split, task_rows=rows.of(config))
  dataset = grain.MapDataset.range(num_batches * process_count * count).map(load).batch(count)
  return _iterate(dataset[process_index::process_count], config)


def _order(split, config):
  return Order(len(split), seed=config.seed, batch_size=config.data.batch_size, repeats=config.augment.repeats)


def _load_train(position, rng, *, split, order, task_rows):
  index, replaced = order(position), False
  for _ in range(_TRIES):
    example = split.source[index]
    try:
      row = task_rows.train(example, rng)
      return {**row, "replaced": np.bool_(replaced)}
    except transforms.ImageError as error:
      _warn_once(f"warning: replaced by another: {_key(split, index, example)}: {error}")
      index, replaced = int(rng.integers(len(split))), True
  raise UserError(f"{split.name}: {_TRIES} images in a row could not be decoded; is this the right data?")


@functools.cache
def _warn_once(message):
  """In every process that loads; the epochs after the first one bring no news."""
  print(message, file=sys.stderr, flush=True)


def _load_eval(index, *, split, task_rows):
  row, example = None, {}
  try:
    if index < len(split):
      example = split.source[index]
      row = task_rows.evaluation(example, split)
  except UserError as error:
    raise UserError(
      f"{_key(split, index, example)}: {error}. Repair or remove it: no score leaves out an image"
    ) from error
  return {**(task_rows.blank(split) if row is None else row), "mask": np.bool_(row is not None)}


def _key(split, index, example):
  """Names an image, for a person who looks for it."""
  name = example.get("file_name", b"")
  name = name.decode() if isinstance(name, bytes) else name
  return f"image {index} of {split.name}{name and f' ({name})'}"


def num_workers(config: ml_collections.ConfigDict) -> int:
  """How many processes load: config.data.workers, where -1 is none for up to four cores, else one per core, up to 16.

  Decoding lets other threads run, what surrounds it does not: threads are cheaper up to about four cores.
  """
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  return config.data.workers if config.data.workers >= 0 else 0 if cores <= 4 else min(cores, 16)


def _iterate(dataset, config):
  ahead, workers = max(1, config.data.prefetch), num_workers(config)
  if not workers:
    # A batch is read by one thread; more of them than cores only add to the memory.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(min(os.cpu_count(), ahead), ahead)))
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads a flag, and outside a command nobody has parsed any
  # Every worker holds what it prepares: one batch each is enough where several work.
  options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=max(1, ahead // workers))
  batches = dataset.to_iter_dataset(grain.ReadOptions(1, 1))
  return iter(batches.mp_prefetch(options, worker_init_fn=_ignore_interrupts))


def _ignore_interrupts(worker_index, worker_count):
  """Ctrl-C reaches every process of a terminal; the main one decides what it means."""
  del worker_index, worker_count
  signal.signal(signal.SIGINT, signal.SIG_IGN)
