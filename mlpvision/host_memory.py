"""How the C library hands out the memory that XLA computes in on the CPU."""

import ctypes
import importlib.util
import os

# glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
  """Makes glibc keep what is freed, on machines where JAX computes on the CPU. Call it before JAX starts.

  XLA's CPU backend allocates its temporaries anew for every step. glibc gives blocks of that size back to the kernel at
  once, which then clears them page by page when they come again: two fifths of the quickstart's CPU time. From one
  heap that never shrinks they come ready. Where there is another C library, or an accelerator, nothing changes.
  """
  accelerator = any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))
  if accelerator and os.environ.get("JAX_PLATFORMS") != "cpu":
    return
  set_option = getattr(ctypes.CDLL(None), "mallopt", None)
  if set_option is None:
    return
  # Blocks above 32 MiB are mapped whatever the threshold, and heaps of other arenas end at 64 MiB: so one arena.
  set_option(_M_ARENA_MAX, 1)
  set_option(_M_MMAP_MAX, 0)
  set_option(_M_TRIM_THRESHOLD, -1)  # never; the largest threshold is 2 GiB, and models free more
