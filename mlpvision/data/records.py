"""Prepared datasets as sources whose errors name the damaged array_record file."""

import dataclasses
import itertools
import os
import stat
from typing import Any

from mlpvision.errors import UserError

_SMALLEST = 2**16  # bytes of an array_record file, which ends with a block of this size


def check_file(path: str) -> None:
  """Raises UserError for what the reader would wait for, or report only after the first steps."""
  if "://" in path:
    return
  try:
    found = os.stat(path)
  except OSError as error:
    raise _damaged(path, error.strerror) from error
  if not stat.S_ISREG(found.st_mode):
    raise _damaged(path, "not a regular file")
  if found.st_size < _SMALLEST:
    raise _damaged(path, f"cut to {found.st_size:,} bytes")


def _damaged(path, reason):
  return UserError(f"{path} cannot be read: {reason}. Copy the file again, or delete the dataset and prepare it again")


@dataclasses.dataclass(frozen=True)
class Records:
  """A source of tfds whose errors name the file. A damaged file ends a run: what else is damaged cannot be known."""

  source: Any
  files: tuple[tuple[str, int], ...]  # (path, number of records)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = range(len(self))[index]
    try:
      example = self.source[index]
      if example["image"] is None:  # the reader returns nothing for what was cut off since it opened the file
        raise ValueError("an empty record")
      return example
    except Exception as error:  # the reader raises RuntimeError, and what parses the record any other
      ends = itertools.accumulate(count for _, count in self.files)
      path = next(path for (path, _), end in zip(self.files, ends, strict=True) if index < end)
      raise _damaged(path, f"image {index}: {error}") from error
