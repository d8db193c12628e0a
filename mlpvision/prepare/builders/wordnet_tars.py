"""Reads ImageNet-21K's archives, whole or in slices: nothing is unpacked, and at most one image is in memory."""

from collections.abc import Callable, Iterator
import contextlib
import gzip
import itertools
import os
import re
import tarfile

from etils import epath

from mlpvision.data import image_files
from mlpvision.errors import UserError
from mlpvision.prepare import tars

_BUFFER = 128 * 1024  # tarfile copies the rest of its buffer at every read, so that large ones are slow
_WNID = re.compile(r"n\d{8}")


def classes(path: str | os.PathLike) -> list[str]:
  """The sorted WordNet ids of an archive, from the names of its members; in 21K-P, of its train and val folders.

  A plain tar takes one small read per member; a gzipped one is unzipped completely.

  Raises:
    UserError: the archive is damaged, or has no classes.
  """
  found = set()
  with _open(path, stream=is_gzip(path)) as tar:
    for member in _members(tar, path):
      found.add(_place(member.name)[1])
  return sorted_classes(found, path)


def sorted_classes(found: set[str], path: str | os.PathLike) -> list[str]:
  """The WordNet ids in `found`, which may have "". Raises UserError if there are none."""
  if not found - {""}:
    raise UserError(f"{path} has no classes: expected members like n00004475.tar or .../n00004475/NAME.JPEG")
  return sorted(found - {""})


def slices(path: str | os.PathLike, size: int) -> tuple[list[str], list[tuple[int, int]]]:
  """(`classes`, [(start, end), ...]) of a tar that is not gzipped: where to cut it, between members.

  Args:
    path: the archive. It takes one small read per member.
    size: fewest bytes of a slice, but for the last.

  Raises UserError as `classes` does.
  """
  found, cuts = set(), [0]
  with _open(path, stream=False) as tar:
    for member in _members(tar, path):
      found.add(_place(member.name)[1])
      if member.offset >= cuts[-1] + size:
        cuts.append(member.offset)
    cuts.append(tar.offset)
  return sorted_classes(found, path), list(itertools.pairwise(cuts))


def images(
  path: str | os.PathLike,
  report: Callable[[str, str, str], object],
  part: tuple[int, int] | None = None,
  found: set[str] | None = None,
) -> Iterator[tuple[str, str, str, bytes]]:
  """Yields (folder, WordNet id, file name, encoded bytes) in the archive's order.

  folder is "train" or "val" in 21K-P, else "".

  Args:
    path: the archive.
    report: called with (folder, name, reason) for an image that is too large, and for a class whose tar is damaged;
      images before the damage are kept.
    part: one of `slices`; None reads the whole archive.
    found: every WordNet id is added to it, and perhaps "".

  Raises:
    UserError: the outer archive is damaged.
  """
  with _open(path, stream=True, part=part) as tar:
    for member in _members(tar, path, is_whole=part is None):
      folder, wnid, name = _place(member.name)
      if found is not None:
        found.add(wnid)
      if not wnid:
        continue
      if name.endswith(".tar"):
        inner = _Part(tar.extractfile(member), path, member.name)
        if member.size:
          yield from _class_images(inner, wnid, report)
        else:
          report("", name, "empty")
      elif _fits(member, folder, name, report):
        yield folder, wnid, name, _Part(tar.extractfile(member), path, member.name).read()


class _Slice:
  """The bytes of a file from start to end, as a file."""

  def __init__(self, file, start, end):
    self._file, self._left = file, end - start
    file.seek(start)

  def read(self, size=-1):
    data = self._file.read(self._left if size < 0 else min(size, self._left))
    self._left -= len(data)
    return data


class _Part:
  """A member of the outer archive, as a file: errors while reading it are the outer archive's."""

  def __init__(self, file, path, name):
    self._file, self._path, self._name = file, path, name

  def read(self, size=-1):
    try:
      return self._file.read(size)
    except tars.DAMAGE as error:
      raise _damaged(self._path, self._name, error) from error


def _class_images(inner, wnid, report):
  try:
    with tarfile.open(fileobj=inner, mode="r|", bufsize=_BUFFER, tarinfo=tars.Member) as tar:
      while (member := tar.next()) is not None:
        name = os.path.basename(member.name)
        if tars.is_file(member) and _fits(member, "", name, report):
          yield "", wnid, name, tar.extractfile(member).read()
        tar.members.clear()
  except tars.DAMAGE as error:
    report("", f"{wnid}.tar", f"damaged: {error}")


def _fits(member, folder, name, report):
  if member.size > image_files.MAX_BYTES:
    report(folder, name, f"{member.size:,} bytes are too many for an image")
  return member.size <= image_files.MAX_BYTES


def _place(member_name):
  """(folder, WordNet id, file name) from the end of a member's path; the WordNet id is "" if it is not an image."""
  parts = member_name.split("/")
  stem, extension = os.path.splitext(parts[-1])
  if extension == ".tar" and _WNID.fullmatch(stem):
    return "", stem, parts[-1]
  if len(parts) >= 3 and _WNID.fullmatch(parts[-2]):
    folder = parts[-3].rpartition("_")[2]
    if folder in ("train", "val"):  # not small_classes
      return folder, parts[-2], parts[-1]
  return "", "", ""


def is_gzip(path: str | os.PathLike) -> bool:
  """Whether an archive can only be read from its beginning."""
  with epath.Path(path).open("rb") as file:
    return file.read(2) == b"\x1f\x8b"


@contextlib.contextmanager
def _open(path, *, stream, part=None):
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(epath.Path(path).open("rb"))
    if is_gzip(path):
      file = stack.enter_context(gzip.open(file))  # detects a missing end, tarfile's "r|gz" does not
    elif part:
      file = _Slice(file, *part)
    try:
      mode, options = ("r|", {"bufsize": _BUFFER}) if stream else ("r:", {})
      tar = stack.enter_context(tarfile.open(fileobj=file, mode=mode, tarinfo=tars.Member, **options))
    except tars.DAMAGE as error:
      raise _damaged(path, "its beginning", error) from error
    yield tar


def _members(tar, path, is_whole=True):
  """The files of an outer archive. Unlike tarfile, it does not keep them, and detects a missing end."""
  last = "its beginning"
  while True:
    try:
      member = tar.next()
      is_file = member is not None and tars.is_file(member)
    except tars.DAMAGE as error:
      raise _damaged(path, last, error) from error
    if member is None:
      # tarfile accepts a file without the final block of zeros.
      if is_whole and not is_gzip(path) and epath.Path(path).stat().length < tar.offset + tarfile.BLOCKSIZE:
        raise _damaged(path, last, "its end is missing")
      return
    last = member.name
    if is_file:
      yield member
    tar.members.clear()


def _damaged(path, last, reason):
  return UserError(f"{path} is damaged at or after {last}: {reason}. Download it again.")
