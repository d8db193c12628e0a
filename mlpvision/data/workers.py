"""Loader processes: they start, work and end without regard to the signals that a terminal or a launcher sends."""

from collections.abc import Iterator
import contextlib
import multiprocessing
from multiprocessing import connection, resource_tracker
import os
import signal
import threading
from typing import Any

from absl import flags
import grain

from mlpvision.errors import UserError

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def iterate(dataset: grain.MapDataset, count: int, ahead: int) -> Iterator[Any]:
  """The items of a dataset, in order, loaded by `count` processes that keep up to `ahead` items ready.

  Raises UserError: a process was killed. Errors of loading are raised as they are.
  """
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads a flag, and flags are not parsed outside of commands
  # The processes share the prefetched items; each buffers at least one.
  options = grain.MultiprocessingOptions(count, per_worker_buffer_size=max(1, ahead // count))
  items = dataset.to_iter_dataset(grain.ReadOptions(1, 1))
  return _iterate(iter(items.mp_prefetch(options, worker_init_fn=_end_with_parent)))


def _iterate(items):
  try:
    # The first item starts the processes. They inherit the blocked signals, which therefore cannot end them, not even
    # while they start; they are stopped by the main process, which gets the same signals.
    with _blocked_signals():
      item = next(items, None)
    while item is not None:
      yield item
      item = next(items, None)
  except RuntimeError as error:
    if "Worker process was terminated" not in str(error):
      raise
    raise UserError(
      f"a loader process ended ({_reason(error)}); the system kills processes if memory is short: reduce data.workers"
      " or data.prefetch. The same command resumes from the newest checkpoint"
    ) from error
  finally:
    items.close()


@contextlib.contextmanager
def _blocked_signals():
  resource_tracker.ensure_running()  # it would unblock them
  previous = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _end_with_parent(worker_index, worker_count):
  """Ends this process when the main process has ended in any way, so that no memory stays occupied."""
  parent = multiprocessing.parent_process().sentinel
  threading.Thread(target=lambda: connection.wait([parent]) and os._exit(0), name="parent", daemon=True).start()


def _reason(error):
  code = str(error).partition("exit code ")[2].partition(".")[0]
  return f"exit code {code}, which is signal {code[1:]}" if code.startswith("-") else f"exit code {code}"
