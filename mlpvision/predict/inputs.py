"""The images that a command line names: files, directories, patterns, and paths on standard input."""

from collections.abc import Iterator, Mapping, Sequence
import glob
import itertools
import os
from typing import BinaryIO

from etils import epath

from mlpvision.data import directories
from mlpvision.errors import UserError

STDIN = "-"


def find(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
  """({path of an image: its name}, what is wrong with arguments), without `STDIN`, each image once.

  An argument is a file of any suffix; a directory, whose images, also those in its directories, come in the order of
  their names; or a pattern such as "photos/**/*.jpg" that no file has as its name. A directory at gs:// is listed too.

  The name of an image is the file's own, or in a directory the path from there: it tells "a/7.jpg" from "b/7.jpg".
  """
  found, problems = {}, []
  for argument in arguments:
    if argument == STDIN:
      continue
    try:
      for path, name in _of(argument):
        found.setdefault(path, name)
    except UserError as error:
      problems.append(str(error))
  return found, problems


def listed(file: BinaryIO, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
  """(path, name) of the images whose paths are on the lines of a file, read as they are needed; not those known."""
  seen = set(known)
  for line in file:
    path = os.fsdecode(line.rstrip(b"\r\n"))
    if path and path not in seen:
      seen.add(path)
      yield path, os.path.basename(path)


def _of(argument):
  if epath.Path(argument).is_dir() if "://" in argument else os.path.isdir(argument):
    return _checked(_in_directory(epath.Path(argument), "", set()), f"{argument}: there are no images in it")
  if "://" in argument or os.path.lexists(argument):
    return [(argument, os.path.basename(argument))]
  if not glob.has_magic(argument):
    raise UserError(f"{argument}: there is no such file")
  matches = sorted(glob.iglob(argument, recursive=True))
  files = ((path, os.path.basename(path)) for path in matches if not os.path.isdir(path))
  return _checked(files, f"{argument}: no file matches")


def _checked(pairs, problem):
  first = next(pairs, None)
  if first is None:
    raise UserError(problem)
  return itertools.chain([first], pairs)


def _in_directory(directory, prefix, above):
  """(path, name) of the images in a directory and below; a link to one of the directories `above` is not followed."""
  real = os.path.realpath(directory)
  if real in above:
    return
  for name, kind in sorted(directories.scan(directory)):
    if kind == "image":
      yield os.fspath(directory / name), prefix + name
    elif kind == "directory":
      yield from _in_directory(directory / name, f"{prefix}{name}/", above | {real})
