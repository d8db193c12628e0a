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
from PIL import Image

from mlpvision.data import datasets, randaugment, transforms
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
    config: the whole config; data, augment and seed are read.
    start_step: the first batch's index.
    process_index, process_count: this host among all.

  Returns:
    An iterator of {"image": uint8 [b, size, size, 3], "label": int32 [b], "mask": bool [b], "replaced": bool [b]},
    b = batch_size / hosts. Where an image could not be decoded, replaced is True and another one stands in its place.
  """
  rows = config.data.batch_size // process_count
  load = functools.partial(
    _load_train,
    split=split,
    order=_order(split, config),
    randaugment=make_randaugment(config),
    config=config,
  )
  dataset = grain.MapDataset.range(sys.maxsize).seed(config.seed).random_map(load).batch(rows)
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

  Args and batches as `train_batches`; rows that fill the last batch up are zero and have mask False. The batch size is
  rounded up to a multiple of device_count, the number of devices over all hosts. For a split with several labels per
  image "label" is bool [b, classes]. Images without a label are not part of a score: zero, mask False.

  Raises:
    UserError: an image cannot be read or decoded: its dataset, split, index and file name. It is skipped nowhere.
  """
  rows = -(-config.eval.batch_size // device_count) * device_count // process_count
  num_batches = -(-len(split) // (rows * process_count))
  load = functools.partial(_load_eval, split=split, config=config)
  dataset = grain.MapDataset.range(num_batches * process_count * rows).map(load).batch(rows)
  return _iterate(dataset[process_index::process_count], config)


def preprocess(image: Image.Image, config: ml_collections.ConfigDict) -> np.ndarray:
  """Evaluation's preprocessing on the host: PIL image -> uint8 [size, size, 3]."""
  view = dict(crop_ratio=config.eval.crop_ratio, interpolation=config.eval.interpolation)
  return transforms.center_crop(image, config.data.image_size, **view)


def make_randaugment(config: ml_collections.ConfigDict) -> randaugment.RandAugment | None:
  """What config.augment.randaugment names, filling with the mean colour; None without."""
  spec = config.augment.randaugment
  return randaugment.parse(spec, fill=tuple(round(255 * mean) for mean in config.data.mean)) if spec else None


def _order(split, config):
  return Order(len(split), seed=config.seed, batch_size=config.data.batch_size, repeats=config.augment.repeats)


def _load_train(position, rng, *, split, order, randaugment, config):
  index, replaced = order(position), False
  for _ in range(_TRIES):
    example = split.source[index]
    try:
      image = crop(example["image"], rng, config)
      break
    except transforms.ImageError as error:
      _warn_once(f"warning: replaced by another: {_key(split, index, example)}: {error}")
      index, replaced = int(rng.integers(len(split))), True
  else:
    raise UserError(f"{split.name}: {_TRIES} images in a row could not be decoded; is this the right data?")
  if randaugment is not None:
    image = randaugment(image, rng)
  return {
    "image": image,
    "label": np.int32(example["label"]),
    "mask": np.True_,
    "replaced": np.bool_(replaced),
  }


@functools.cache
def _warn_once(message):
  """In every process that loads; the epochs after the first one bring no news."""
  print(message, file=sys.stderr, flush=True)


def crop(data: bytes, rng: np.random.Generator, config: ml_collections.ConfigDict) -> np.ndarray:
  """A training image at image_size, as config.augment.crop says: encoded bytes -> uint8 [size, size, 3]."""
  augment, size = config.augment, config.data.image_size
  if augment.crop == "center":
    return preprocess(transforms.open_image(data), config)
  if augment.crop == "random_resized":
    return transforms.random_resized_crop(data, size, rng, scale=augment.crop_scale, ratio=augment.crop_ratio)
  moves = dict(rotation=augment.rotation, zoom=augment.zoom, shift=augment.shift)
  return transforms.random_affine(transforms.decode(data), size, rng, **moves)


def _load_eval(index, *, split, config):
  size, num_classes = config.data.image_size, len(split.class_names)
  label = np.zeros(num_classes, np.bool_) if split.multi_label else np.int32(0)
  nothing = {"image": np.zeros((size, size, 3), np.uint8), "label": label, "mask": np.False_}
  if index >= len(split):
    return nothing
  example = {}
  try:
    example = split.source[index]
    right = np.atleast_1d(example["label"])
    right = right[right >= 0]  # tfds marks a test image whose label is secret with -1
    if not right.size:
      return nothing
    if split.multi_label:
      label[right] = True
    else:
      label = np.int32(right[0])
    image = preprocess(transforms.open_image(example["image"]), config)
  except UserError as error:
    raise UserError(
      f"{_key(split, index, example)}: {error}. Repair or remove it: no score leaves out an image"
    ) from error
  return {"image": image, "label": label, "mask": np.True_}


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
