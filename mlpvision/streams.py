"""Standard output and error that cannot end a command."""

import errno
import io
import os
import sys


class _Output(io.FileIO):
  """Standard output or error. It is dropped once nobody can read it: the pipe or the terminal has been closed."""

  def write(self, data: bytes) -> int | None:
    try:
      return super().write(data)
    except OSError as error:
      if error.errno not in (errno.EPIPE, errno.EIO):
        raise
      os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
      return len(data)


def reopen() -> None:
  """Makes printing safe: closed streams are dropped, and characters that an encoding lacks are escaped."""
  for descriptor in (0, 1, 2):
    try:
      os.fstat(descriptor)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which another file would take otherwise
  for name, descriptor in (("stdout", 1), ("stderr", 2)):
    stream = getattr(sys, name)
    if stream is not None and (stream is not getattr(sys, f"__{name}__") or stream.fileno() != descriptor):
      continue  # captured by the caller
    like = stream or io.TextIOWrapper(io.BytesIO(), "utf-8")
    raw = io.BufferedWriter(_Output(descriptor, "w", closefd=False))
    options = dict(line_buffering=like.line_buffering or name == "stderr", write_through=like.write_through)
    setattr(sys, name, io.TextIOWrapper(raw, like.encoding, "backslashreplace", **options))
