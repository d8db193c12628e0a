"""Memory that loader processes fill and the main process reads, in slots that are used again and again.

It has no name: nothing is left in /dev/shm however processes end, and the size of /dev/shm does not matter.
"""

import collections
import mmap
from multiprocessing import reduction
import os
import tempfile
from typing import Any
import weakref

import numpy as np

from mlpvision.data.batches import Layout

_SLOT = 2**34  # bytes between slots in the file; what is never written takes no memory
_SMALL = 2**16  # bytes of an array that is copied, so that who keeps labels does not keep a slot


class Memory:
  """Slots of shared memory. In a `Process`'s arguments, it is the same memory in the child."""

  def __init__(self, slots: int, descriptor: int | None = None) -> None:
    """descriptor: of existing memory."""
    self._maps, self.slots = {}, slots
    self._descriptor = _create() if descriptor is None else descriptor
    self._close = weakref.finalize(self, os.close, self._descriptor)
    if descriptor is None:
      os.ftruncate(self._descriptor, slots * _SLOT)

  def __reduce__(self) -> tuple[Any, ...]:
    return _open, (self.slots, reduction.DupFd(self._descriptor))

  def buffer(self, slot: int, nbytes: int) -> np.ndarray:
    """The first bytes of a slot: uint8 [nbytes]. Each process maps a slot once, and then pays for its pages no more."""
    found = self._maps.get(slot)
    if found is None or len(found) < nbytes:
      if nbytes > _SLOT:
        raise ValueError(f"a batch of {nbytes:,} bytes is too large; the limit is {_SLOT:,}")
      found = self._maps[slot] = mmap.mmap(self._descriptor, max(1, nbytes), offset=slot * _SLOT)
    return np.frombuffer(found, np.uint8, nbytes)


class Lender:
  """Lends slots to whoever takes batches; a slot comes back when the last of its arrays is gone."""

  def __init__(self, memory: Memory) -> None:
    self._memory, self._free = memory, collections.deque(range(memory.slots))

  def take(self) -> int | None:
    """A free slot, if there is one."""
    return self._free.popleft() if self._free else None

  def lend(self, slot: int, layout: Layout) -> Any:
    """The arrays in a slot. If they take the last one, copies: who keeps many batches does not stop the loader."""
    buffer = self._memory.buffer(slot, layout.nbytes)
    copies = not self._free
    arrays = layout.map(
      lambda field: field.view(buffer).copy() if copies or field.nbytes < _SMALL else field.view(buffer)
    )
    # All views refer to `buffer`, and it is collected after them.
    weakref.finalize(buffer, self._free.append, slot).atexit = False
    return arrays


def _create():
  if hasattr(os, "memfd_create"):
    return os.memfd_create("mlpvision")
  with tempfile.TemporaryFile() as file:  # it has no name, either
    return os.dup(file.fileno())


def _open(slots, descriptor):
  return Memory(slots, descriptor.detach())
