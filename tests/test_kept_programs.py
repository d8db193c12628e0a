"""The cache of compiled programs in the user's home directory."""

import subprocess
import sys

import filelock
import pytest

from mlpvision import commands

_VARIABLES = (
  "JAX_COMPILATION_CACHE_DIR",
  "JAX_COMPILATION_CACHE_MAX_SIZE",
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


@pytest.fixture
def directory(tmp_path, monkeypatch):
  """The cache's directory, of a new home."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  for name in _VARIABLES:
    monkeypatch.setenv(name, "")  # restored afterwards
    monkeypatch.delenv(name)
  commands.keep_compiled_programs()
  (found,) = (tmp_path / "mlpvision").iterdir()
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  return found


def test_a_program_whose_writing_was_interrupted_is_removed(directory, monkeypatch):
  for name in ("whole-cache", "whole-atime", "half-cache"):
    (directory / name).write_bytes(b"\0" * 8)
  with filelock.FileLock(directory / ".lockfile"):  # as a process that writes
    commands.keep_compiled_programs()
    assert (directory / "half-cache").exists()
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  commands.keep_compiled_programs()
  assert {path.name for path in directory.iterdir()} - {".lockfile"} == {"whole-cache", "whole-atime"}


def test_programs_are_kept_and_found(directory):
  (directory / "half-cache").write_bytes(b"half of a program")
  program = (
    "from mlpvision import commands; commands.keep_compiled_programs()\n"
    "import jax; jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
    "hits = []; jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n"
    "jax.jit(lambda x: x * 2 + 1)(1.0)\n"
    "print(sum('cache_hits' in name for name in hits))\n"
  )
  printed = []
  for _ in range(2):
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed.append(int(done.stdout))
  assert printed[0] == 0 < printed[1]
