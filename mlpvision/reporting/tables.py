"""Files of results, written row by row: an interrupted command leaves all rows that it had."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import csv
import json
import os
from typing import Any, Self, TextIO

from mlpvision import workdir as workdir_lib
from mlpvision.errors import UserError


class Table:
  """A CSV file with a line for each row. Undecodable bytes of file names are written as they are."""

  def __init__(self, file: str, columns: Sequence[str]) -> None:
    """Begins the file with the names of the columns. UserError, as from all methods, if it cannot be written."""
    self._file = _Output(file)
    self._rows = csv.writer(self._file, lineterminator="\n")
    self.add([columns])

  def add(self, rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows."""
    self._rows.writerows(rows)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()


class Objects:
  """A file of JSON objects: one on each line, or, as an array, the elements of one."""

  def __init__(self, file: str, *, array: bool = False) -> None:
    """Begins the file. UserError, as from all methods, if it cannot be written."""
    self._file, self._array, self._count = _Output(file), array, 0
    self._file.write("[" if array else "")

  def add(self, values: Iterable[Mapping[str, Any]]) -> None:
    """Writes objects."""
    for value in values:
      text = json.dumps(value)
      self._file.write(f"{',' if self._count else ''}\n{text}" if self._array else f"{text}\n")
      self._count += 1

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._file.write("\n]\n" if self._array else "")
    self._file.close()


class _Output:
  """A text file in a directory that it makes."""

  def __init__(self, file):
    self._name = file
    with self._readable():
      os.makedirs(os.path.dirname(file) or ".", exist_ok=True)
      self._file: TextIO = open(file, "w", encoding="utf-8", errors="surrogateescape", newline="")

  def write(self, text):
    with self._readable():
      self._file.write(text)

  def close(self):
    with self._readable():
      self._file.close()

  @contextlib.contextmanager
  def _readable(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise UserError(f"cannot write {self._name}: {workdir_lib.reason(error)}") from error
