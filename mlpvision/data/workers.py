"""Loader processes: they start, work and end without regard to the signals that a terminal or a launcher sends.

The main process deals out parts of batches in turn, a few to each process, which answers in the same order. So a
process knows what it has to read next, no state but the number of a batch is needed, and all processes work on the next
few batches instead of a whole batch each. Rows are written where the main process takes them from.
"""

from collections import deque
from collections.abc import Iterator
import contextlib
import itertools
import math
import multiprocessing
from multiprocessing import connection as connections, resource_tracker, util
import os
import pickle
import signal
import threading
import traceback
from typing import Any

import cloudpickle

from mlpvision.data import shared_memory
from mlpvision.data.batches import Batches, Layout, put
from mlpvision.errors import UserError

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_ROWS = 32  # of a part
_PARTS = 3  # that each process has to do: one in work, and two whose examples are being read
_KEPT = 4  # batches in shared memory that the main process may hold before it gets copies
_SLOTS = 256  # each is an open file in each process


def iterate(batches: Batches, count: int, ahead: int) -> Iterator[Any]:
  """The batches in order, loaded by up to `count` processes that keep at least `ahead` ready or in work.

  Arrays are in shared memory, which is used again once nothing refers to them.

  Raises UserError: a process was killed. Errors of loading are raised as they are.
  """
  parts = [range(start, min(start + _ROWS, batches.size)) for start in range(0, batches.size, _ROWS)]
  count = min(count, batches.count * len(parts))
  if not count:
    return
  ahead = min(max(ahead, math.ceil(_PARTS * count / len(parts))), batches.count, _SLOTS)
  memory = shared_memory.Memory(ahead + _KEPT)
  lender, processes = shared_memory.Lender(memory), _start(memory, batches, count)
  try:
    yield from _take(batches, parts, lender, processes, ahead)
  finally:
    processes.close()


def _take(batches, parts, lender, processes, ahead):
  numbers, turn, dealt = iter(range(batches.count)), itertools.cycle(range(len(processes))), deque()

  def deal():
    while len(dealt) < ahead and (slot := lender.take()) is not None:
      number = next(numbers, None)
      if number is None:
        return
      owners = [next(turn) for _ in parts]
      dealt.append((slot, owners))
      for owner, part in zip(owners, parts, strict=True):
        processes.send(owner, (slot, number, part))

  deal()
  while dealt:
    slot, owners = dealt.popleft()
    deal()
    answers = [processes.receive(owner) for owner in owners]
    if any(answer is not answers[0] for answer in answers):
      raise ValueError("rows of a batch have different shapes or dtypes")
    yield lender.lend(slot, answers[0])


class _Processes:
  """The running processes, by number."""

  def __init__(self, processes, ends):
    self._processes, self._ends = processes, ends
    self._last = b"", None  # nearly all answers are equal, and unpickling takes longer than comparing
    # At exit, multiprocessing would send SIGTERM, which they do not heed, and wait.
    self.close = util.Finalize(None, _kill, (processes, ends), exitpriority=10)

  def __len__(self):
    return len(self._processes)

  def send(self, number, message):
    with self._named(number):
      self._ends[number].send_bytes(message if isinstance(message, bytes) else pickle.dumps(message))

  def receive(self, number):
    with self._named(number):
      answer = self._ends[number].recv_bytes()
    if answer != self._last[0]:
      self._last = answer, pickle.loads(answer)
    if isinstance(self._last[1], Exception):
      raise self._last[1]
    return self._last[1]

  @contextlib.contextmanager
  def _named(self, number):
    try:
      yield
    except (EOFError, ConnectionError) as error:
      process = self._processes[number]
      process.join(20)
      raise UserError(
        f"a loader process ended ({_reason(process.exitcode)}); the system kills processes if memory is short: reduce"
        " data.workers or data.prefetch. The same command resumes from the newest checkpoint"
      ) from error


def _start(memory, batches, count):
  context, processes, ends = multiprocessing.get_context("spawn"), [], []
  started = _Processes(processes, ends)
  try:
    # They inherit the blocked signals, which therefore cannot end them, not even while they start; they are stopped by
    # the main process, which gets the same signals.
    with _blocked_signals():
      for _ in range(count):
        end, theirs = context.Pipe()
        ends.append(end)
        processes.append(context.Process(target=_work, args=(memory, theirs), daemon=True, name="loader"))
        processes[-1].start()
        theirs.close()
    work = cloudpickle.dumps(batches)  # functions of a notebook or script, too
    for number in range(count):
      started.send(number, work)
  except BaseException:
    started.close()
    raise
  return started


@contextlib.contextmanager
def _blocked_signals():
  resource_tracker.ensure_running()  # it would unblock them
  previous = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _kill(processes, ends):
  """Ends them at once: they own nothing."""
  for process in processes:
    if process.pid is not None:
      process.kill()
  for process in processes:
    if process.pid is not None:
      process.join()
  for end in ends:
    end.close()


def _reason(code):
  return f"exit code {code}, which is signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _work(memory, end):
  """A process: takes parts and answers each with its layout, or with the error."""
  # When the main process has ended in any way, so that no memory stays occupied.
  parent = multiprocessing.parent_process().sentinel
  threading.Thread(target=lambda: connections.wait([parent]) and os._exit(0), name="parent", daemon=True).start()
  try:
    batches, todo = _receive(end), deque()
    while True:
      while not todo or end.poll():
        slot, number, part = _receive(end)
        positions = batches.positions(number)[part.start : part.stop]
        batches.expect(positions)
        todo.append((slot, part, positions))
      end.send(_load(memory, batches, *todo.popleft()))
  except Exception as error:
    end.send(_portable(error))
    end.poll(None)  # the main process still has to take what was sent before


def _receive(end):
  try:
    return pickle.loads(end.recv_bytes())
  except (EOFError, ConnectionError):
    os._exit(0)  # the main process has ended


def _load(memory: shared_memory.Memory, batches: Batches, slot: int, part: range, positions: range) -> Layout:
  row = batches.rows[positions[0]]
  layout = Layout.of(row, batches.size)
  buffer = memory.buffer(slot, layout.nbytes)
  arrays = layout.map(lambda field: field.view(buffer))
  put(arrays, part[0], row)
  for i, position in zip(part[1:], positions[1:], strict=True):
    put(arrays, i, batches.rows[position])
  return layout


def _portable(error):
  """The error as one that can be pickled, and whose traceback is not lost."""
  if not isinstance(error, UserError):
    error.add_note(f"In a loader process:\n{traceback.format_exc()}")
  try:
    pickle.loads(pickle.dumps(error))
    return error
  except Exception:
    return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
