"""Predicts any number of images in constant memory: threads decode the next images while the device computes."""

from collections import deque
from collections.abc import Iterable, Iterator
import concurrent.futures
import itertools
import os
import threading
from typing import Any

from mlpvision import tasks
from mlpvision.data import image_files, transforms
from mlpvision.errors import UserError
from mlpvision.trained import Trained

BATCH = 32  # images of a classifier in a batch; those of other tasks have shapes of their own
_LARGE = 2**22  # pixels of an image of which only one is decoded at a time; it takes up to eight bytes per pixel


def stream(
  trained: Trained, paths: Iterable[str], top: int = 5, batch_size: int = BATCH
) -> Iterator[tuple[str, Any, UserError | None]]:
  """Yields (path, prediction, None), or (path, None, error) for an image that cannot be read, in the order of paths.

  At most twice `batch_size` images are in memory, as the model sees them, and few as they are stored. Predictions are
  those of `Trained.predict`, up to the rounding of a batch.

  paths: also an endless iterable; a few are taken ahead. top: classes of a classifier, most probable first.
  """
  size = batch_size if trained.task is tasks.classification else 1
  rows = _rows(trained, paths, ahead=size + _threads())
  while batch := list(itertools.islice(rows, size)):
    good = [row for _, row, error in batch if error is None]
    # A batch of a power of two: a few images need no large batch, and few programs are compiled.
    padded = good + good[-1:] * ((1 << (len(good) - 1).bit_length()) - len(good)) if good else []
    found = iter(trained.of_rows(padded, top) if good else [])
    for path, _, error in batch:
      yield (path, None, error) if error else (path, next(found), None)


def _threads():
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  return min(cores, 16)


def _rows(trained, paths, ahead):
  """Yields (path, row, error), in order; one of the two is None. `ahead` rows are made ahead."""
  large, paths = threading.Lock(), iter(paths)

  def load(path):
    try:
      if _is_large(path):
        with large:
          return path, trained.task.row(path, trained.config_of_task), None
      return path, trained.task.row(path, trained.config_of_task), None
    except UserError as error:
      return path, None, error

  pool = concurrent.futures.ThreadPoolExecutor(_threads(), thread_name_prefix="decode")
  try:
    dealt = deque(pool.submit(load, path) for path in itertools.islice(paths, ahead))
    while dealt:
      yield dealt.popleft().result()
      dealt.extend(pool.submit(load, path) for path in itertools.islice(paths, 1))
  finally:
    pool.shutdown(wait=False, cancel_futures=True)


def _is_large(path):
  if "://" in path:  # reading its header alone would take as long as reading it
    return False
  try:
    height, width = transforms.file_size(path)
  except image_files.ImageError:
    return False  # `row` says what is wrong
  return height * width > _LARGE
