"""What the kinds of folders have in common: "folder:/path", names of splits and their slices, lists of file names."""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import os
import re

from etils import epath
import numpy as np

from mlpvision.errors import UserError

PREFIX = "folder:"
# Of `image_files.FORMATS`.
SUFFIXES = frozenset(".avif .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())

# Interchangeable names of an evaluation split: if only one of them exists, it is used for the others.
_VALIDATION = ("val", "valid", "validation")
_HELD_OUT = (*_VALIDATION, "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Names:
  """File names in one array, so that a million of them take little memory and are sent to a worker quickly."""

  text: np.ndarray  # uint8, all names, one after the other
  ends: np.ndarray  # int64, the end of each

  @classmethod
  def of(cls, names: Iterable[bytes]) -> "Names":
    """From encoded names."""
    names = list(names)
    return cls(np.frombuffer(b"".join(names), np.uint8), np.cumsum([len(name) for name in names], dtype=np.int64))

  def __len__(self) -> int:
    return len(self.ends)

  def __getitem__(self, index: int) -> str:
    return os.fsdecode(self.raw(index))

  def raw(self, index: int) -> bytes:
    """As encoded."""
    index = range(len(self))[index]
    start = self.ends[index - 1] if index else 0
    return self.text[start : self.ends[index]].tobytes()

  def part(self, start: int, stop: int) -> "Names":
    """Those from start to stop."""
    begin = self.ends[start - 1] if start else 0
    return Names(self.text[begin : self.ends[stop - 1]], self.ends[start:stop] - begin)

  def tobytes(self) -> bytes:
    """Equal for equal names in equal order."""
    return self.ends.tobytes() + self.text.tobytes()


def root(name: str) -> epath.Path:
  """The directory of "folder:/path". UserError if there is none."""
  path = epath.Path(name.removeprefix(PREFIX)).expanduser()
  if not path.is_dir():
    raise UserError(f"{name}: there is no directory {path}")
  return path


def scan(path: epath.Path) -> Iterator[tuple[str, str | None]]:
  """(name, kind) of a directory's entries. Kinds are "directory", "image", by its suffix, and for others None."""
  try:
    with os.scandir(path) if "://" not in os.fspath(path) else contextlib.nullcontext(path.iterdir()) as entries:
      for entry in entries:
        if entry.name.startswith("."):
          yield entry.name, None
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
          yield entry.name, "image"
        else:
          yield entry.name, "directory" if entry.is_dir() else None
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def parse_split(name: str, split: str) -> tuple[str, str]:
  """(name of the split, selector) of "train" or "train[:90%]"; UserError for another form."""
  spec = re.fullmatch(r"\s*([^\[\]+]+?)\s*(\[[^\]]*\])?\s*", split)
  if spec is None:
    raise UserError(f"split {split!r} of {name}: must be a single split, such as train or train[:90%]")
  return spec[1], spec[2] or ""


def match_split(wanted: str, splits: Sequence[str]) -> str | None:
  """The one of `splits` that `wanted` names, or is another name for; None if there is none."""
  if wanted in splits:
    return wanted
  for alike in (_VALIDATION, _HELD_OUT):
    found = [entry for entry in splits if entry in alike]
    if wanted in alike and len(found) == 1:
      return found[0]
  return None


def bounds(selector: str, count: int, what: str) -> tuple[int, int]:
  """(start, stop) of a selector such as "[:90%]" among `count` images; UserError, with `what`, if it has none."""
  if not selector:
    return 0, count
  import tensorflow_datasets as tfds

  length = tfds.core.SplitInfo(name="train", shard_lengths=[count], num_bytes=0)
  try:
    (part,) = tfds.core.ReadInstruction.from_spec(f"train{selector}").to_absolute({"train": length})
  except ValueError as error:
    raise UserError(f"{what}: {error}") from error
  start, stop, _ = slice(part.from_, part.to).indices(count)
  if stop <= start:
    raise UserError(f"{what} contains none of the {count:,} images")
  return start, stop


def listed(names: Sequence[str]) -> str:
  """The first five, and how many more there are."""
  return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
