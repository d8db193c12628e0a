"""A text file with the names of classes, one per line; the first line is index 0."""

import os

from etils import epath

from mlpvision.data.dense_transforms import IGNORE
from mlpvision.errors import UserError, printable


def read(path: str | os.PathLike) -> tuple[str, ...]:
  """The names. Raises UserError if it cannot be read, or has none, empty lines, equal names, or more than 255."""
  try:
    lines = epath.Path(path).expanduser().read_text(encoding="utf-8-sig").rstrip().splitlines()
  except FileNotFoundError as error:
    raise UserError(f"there is no file {path}; it must have the name of a class on each line") from error
  except (OSError, ValueError) as error:  # ValueError: not UTF-8
    raise UserError(f"{path} cannot be read as text, with the name of a class on each line: {error}") from error
  names = tuple(line.strip() for line in lines)
  if problem := _problem(names):
    raise UserError(f"{path} has {problem}. Write the name of a class on each line, index 0 first")
  return names


def _problem(names):
  if not names:
    return "no classes"
  if len(names) > IGNORE:
    return f"{len(names):,} classes; a label map has room for {IGNORE}"
  numbers = {}
  for number, name in enumerate(names, 1):
    if not name:
      return f"an empty line, {number}"
    if name in numbers:
      return f"the class {printable(name)!r} twice, in lines {numbers[name]} and {number}"
    numbers[name] = number
  return ""
