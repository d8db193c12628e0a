"""The members of a zip archive of images that is read without unpacking it."""

from collections.abc import Mapping
import os
import struct
import zlib

from mlpvision import zips
from mlpvision.data import image_files
from mlpvision.errors import UserError


def open_archive(path: str | os.PathLike) -> dict[str, zips.Member]:
  """{name: member} of an archive. Raises UserError if it is damaged."""
  try:
    return zips.members(path)
  except (OSError, ValueError, struct.error) as error:
    raise UserError(f"{path} cannot be read as a zip archive: {error}. Download it again") from error


def read_member(members: Mapping[str, zips.Member], name: str, limit: int) -> bytes:
  """The bytes of a member. Raises ImageError if there is none, it is damaged, or longer than `limit` bytes."""
  if name not in members:
    raise image_files.ImageError(f"{name} is not in the archive")
  if members[name].size > limit:
    raise image_files.ImageError(f"{name} has {members[name].size:,} bytes; up to {limit:,} are read")
  try:
    return members[name].read().tobytes()
  except (OSError, ValueError, zlib.error) as error:
    raise image_files.ImageError(f"{name} is damaged in the archive: {error}") from error
