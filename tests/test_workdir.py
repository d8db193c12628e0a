"""One run in a workdir, and what keeps a disk from being written."""

import errno
import os

import pytest

from mlpvision import workdir as workdir_lib
from mlpvision.errors import UserError

# Holds the lock, and has a forked child and one of another program, which outlive it.
_HOLDER = """
import os, subprocess, sys, time
from mlpvision import workdir
with workdir.hold(sys.argv[1]):
  subprocess.Popen(["sleep", "60"])
  if os.fork():
    print("held", flush=True)
  time.sleep(60)
"""


def test_a_workdir_has_one_run(tmp_path):
  workdir, link = tmp_path / "run", tmp_path / "link"
  workdir.mkdir()
  link.symlink_to(workdir)
  for _ in range(2):
    with workdir_lib.hold(workdir):
      for path in (workdir, f"{workdir}/", link, os.path.relpath(workdir)):
        with pytest.raises(UserError, match=rf"in use by another run: process {os.getpid()} on \S+, since 2"):
          with workdir_lib.hold(path):
            pass


def test_a_killed_run_leaves_no_lock(start, tmp_path):
  holder = start("-W", "ignore", "-c", _HOLDER, str(tmp_path))
  assert holder.stdout.readline() == "held\n"
  with pytest.raises(UserError, match=f"process {holder.pid} on "), workdir_lib.hold(tmp_path):
    pass
  holder.kill()
  holder.wait()
  with workdir_lib.hold(tmp_path):
    pass


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_a_lock_that_is_no_file_is_named(tmp_path, make):
  make(tmp_path / ".lock")
  with pytest.raises(UserError, match=r"cannot lock .*\.lock"), workdir_lib.hold(tmp_path):
    pass


@pytest.mark.parametrize(
  ("number", "words"),
  [
    (errno.ENOSPC, "full"),
    (errno.EDQUOT, "quota"),
    (errno.EFBIG, "ulimit -f"),
    (errno.EROFS, "read-only"),
    (errno.EACCES, "permission"),
    (errno.EIO, "disk"),
    (errno.ESTALE, "server"),
  ],
)
def test_what_keeps_a_file_from_being_written_is_named(number, words):
  of_the_system = OSError(number, os.strerror(number))
  of_a_library = ValueError(f"OUT_OF_RANGE: {os.strerror(number)} [os_error_code='{number}']\nSource locations: ...")
  for error in (of_the_system, of_a_library):
    reason = workdir_lib.reason(error)
    assert words in reason
    assert ("Free some space" in reason) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert "\n" not in reason


def test_other_errors_get_no_advice(monkeypatch):
  assert workdir_lib.reason(ValueError("x\ny")) == "x"
  barrier = TimeoutError("Barrier timed out")
  assert workdir_lib.reason(barrier) == "Barrier timed out"
  monkeypatch.setattr("jax.process_count", lambda: 2)
  assert workdir_lib.reason(barrier) == "Barrier timed out: another process is probably dead"


def test_a_file_is_replaced_as_a_whole(tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"old")

  def fails():
    yield b"new"
    raise OSError(errno.ENOSPC, "full")

  with pytest.raises(OSError, match="full"):
    workdir_lib.replace(path, fails())
  assert path.read_bytes() == b"old"
  workdir_lib.replace(path, [b"new", b"er"])
  assert path.read_bytes() == b"newer"
  assert os.listdir(tmp_path) == ["file"]
