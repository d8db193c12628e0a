"""Tar archives of unknown origin: what they declare is checked before it is believed. Standard library only."""

from collections.abc import Iterator
import contextlib
import tarfile
import zlib

# What reading a damaged archive raises. tarfile lets through errors of its own parsing, and recurses over long chains
# of extended headers.
DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, ArithmeticError, LookupError, RecursionError)

MAX_MEMBER = 16 * 2**30  # bytes; an archive's largest members are classes of about 1 GB
_MAX_HEADER = 2**20  # bytes of a long name or of extended attributes, which tarfile keeps in memory
_EXTENDED = (
  tarfile.GNUTYPE_LONGNAME,
  tarfile.GNUTYPE_LONGLINK,
  tarfile.XHDTYPE,
  tarfile.XGLTYPE,
  tarfile.SOLARIS_XHDTYPE,
)


class Member(tarfile.TarInfo):
  """For tarfile.open(tarinfo=Member): raises tarfile.ReadError for absurd sizes and for sparse files.

  A negative size would send tarfile back to where it was; the zeros of a sparse file take no space in the archive.
  """

  @classmethod
  def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "Member":
    """Parses one header of any kind, as tarfile does for each."""
    try:
      member = super().frombuf(buf, encoding, errors)
    except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):
      raise
    except tarfile.HeaderError as error:  # tarfile would take it for the end of the archive
      raise tarfile.ReadError(str(error)) from error
    if member.type == tarfile.GNUTYPE_SPARSE:
      _refuse_sparse(member)
    _check_size(member, _MAX_HEADER if member.type in _EXTENDED else MAX_MEMBER)
    return member

  def _apply_pax_info(self, pax_headers, encoding, errors):  # extended attributes may replace the size
    super()._apply_pax_info(pax_headers, encoding, errors)
    _check_size(self, MAX_MEMBER)

  def _refuse_sparse_attributes(self, following, *details):
    _refuse_sparse(following)

  # tarfile's readers of the three ways to note a sparse file in extended attributes.
  _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse_attributes


@contextlib.contextmanager
def checked() -> Iterator[None]:
  """In this context, every archive that this process opens is read with `Member`: for the builders of tfds."""
  before, tarfile.TarFile.tarinfo = tarfile.TarFile.tarinfo, Member
  try:
    yield
  finally:
    tarfile.TarFile.tarinfo = before


def is_file(member: tarfile.TarInfo) -> bool:
  """Whether a member is a file, not a directory; tarfile.ReadError for what it must not be, with all headers read."""
  if not (member.isfile() or member.isdir()):
    raise tarfile.ReadError(f"{member.name} is a link or a device")
  if member.issparse():
    _refuse_sparse(member)
  return member.isfile()


def _check_size(member, limit):
  if not 0 <= member.size <= limit:
    raise tarfile.ReadError(f"{member.name} declares {member.size:,} bytes")


def _refuse_sparse(member):
  raise tarfile.ReadError(f"{member.name} is a sparse file")
