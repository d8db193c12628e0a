"""The directory of a run: one run at a time, files replaced as a whole, and what keeps a disk from being written."""

from collections.abc import Iterable, Iterator
import contextlib
import datetime
import errno
import fcntl
import os
import re
import socket
import time

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np

from mlpvision.errors import UserError

LOCK = ".lock"
_SPACE = "Free some space there"
# What can keep a file from being written, and what to do about it.
_ADVICE = {
  errno.ENOSPC: f"the disk is full. {_SPACE}",
  errno.EDQUOT: f"the disk quota is used up. {_SPACE}",
  errno.EFBIG: "the file is larger than this process may write. Raise the limit (ulimit -f)",
  errno.EROFS: "the file system is read-only. Make it writable, or use another --workdir",
  errno.EACCES: "the permission is missing. Change it, or use another --workdir",
  errno.EPERM: "the operation is not permitted. Change the permissions, or use another --workdir",
  errno.EIO: "the disk or the connection to it fails. Check it",
  errno.ESTALE: "the connection to the file server was lost. Check it",
}
_PEERS = re.compile(r"DEADLINE_EXCEEDED|UNAVAILABLE|CANCELLED|barrier|coordination|heartbeat", re.IGNORECASE)


def reason(error: BaseException) -> str:
  """Why a file could not be written or read, and what to do: one line.

  error: an OSError, or an exception of a library that has the system's words for one.
  """
  line = (str(error).splitlines() or [""])[0][:200]
  for number, advice in _ADVICE.items():
    if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
      return f"{line}: {advice}"
  if jax.process_count() > 1 and (isinstance(error, TimeoutError) or _PEERS.search(str(error))):
    return f"{line}: another process is probably dead"
  return line


@contextlib.contextmanager
def readable_errors(what: epath.PathLike) -> Iterator[None]:
  """A context in which an OSError becomes a UserError that says that `what` could not be written, and why."""
  try:
    yield
  except OSError as error:
    raise UserError(f"cannot write {os.fspath(what)}: {reason(error)}. Then run the same command again") from error


def is_remote(path: epath.PathLike) -> bool:
  """Whether a path is an address such as gs://, where files are not the operating system's."""
  return "://" in os.fspath(path)


def is_file(path: epath.PathLike) -> bool:
  """Whether a path is a file, or a link to one, that ends: no folder, pipe or device."""
  return epath.Path(path).is_file() if is_remote(path) else os.path.isfile(path)


def replace(path: epath.PathLike, chunks: Iterable[bytes]) -> None:
  """Writes a file anew: at any moment, the old one or the whole new one is there. Raises OSError.

  chunks: the content, which may be read from the old file.
  """
  path = epath.Path(path)
  if is_remote(path):  # object stores show a file once it is complete
    path.write_bytes(b"".join(chunks))
    return
  temporary = f"{os.fspath(path)}.tmp"
  try:
    with open(temporary, "wb") as file:
      file.writelines(chunks)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.unlink(temporary)
    raise


@contextlib.contextmanager
def hold(workdir: epath.PathLike) -> Iterator[None]:
  """A context that no two runs are in at the same time. Every process of a run must enter it.

  Process 0 locks WORKDIR/.lock. The kernel ends the lock with the process, however it ends, so a crashed run never
  blocks the next one. The file remains; it says who has the lock, for the message. Network file systems with locks,
  such as NFS, hold it for all their hosts. gs:// has no locks: nothing is checked there, nor on file systems that
  refuse to lock, which is logged.

  Raises UserError, in every process: another run has the lock.
  """
  descriptor, problem = None, None
  if jax.process_index() == 0 and not is_remote(workdir):
    try:
      descriptor = _lock(os.path.join(workdir, LOCK))
    except UserError as error:
      problem = error
  if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.array(problem is not None)):
    problem = problem or UserError(f"process 0 could not lock {os.fspath(workdir)}: see its message")
  if problem:
    raise problem
  _held.add(descriptor)
  try:
    yield
  finally:
    _held.remove(descriptor)
    if descriptor is not None:
      with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
      os.close(descriptor)


def _release_in_child():
  for descriptor in _held - {None}:
    os.close(descriptor)


# A forked child must not keep the lock after the run's death. In a spawned one, Python's descriptors are closed anyway.
_held = set()
os.register_at_fork(after_in_child=_release_in_child)


def _lock(path):
  """A descriptor that holds the lock; None where the file system has no locks."""
  try:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
  except OSError as error:
    raise UserError(f"cannot lock the workdir: {reason(error)}") from error
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    time.sleep(0.2)  # its owner may only now be writing who it is
    owner = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
    os.close(descriptor)
    raise UserError(
      f"{os.path.dirname(path)} is in use by another run{owner and f': {owner}'}.\n"
      "Wait for its end or stop it, then run the same command to resume; or use another --workdir."
    ) from error
  except OSError as error:
    logging.warning("%s: the file system has no locks (%s): do not start two runs in one workdir", path, error)
    os.close(descriptor)
    return None
  now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
  with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}, since {now}\n".encode(), 0)
  return descriptor
