"""COCO's annotation files: read once, checked, and turned into arrays.

What would give wrong labels or figures is refused. What can be left out is counted and said: polygons without three
points, objects without any other polygon, and objects that training does not use. docs/detection.md has the table.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import os
from typing import Any

from etils import epath
import numpy as np

from mlpvision.data import directories, image_files, notes, objects, rle
from mlpvision.errors import UserError, printable

_FIRST = 3  # of a kind of problem, which a message shows


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
  """An annotation file.

  Attributes:
    class_names: in the order of the categories' ids.
    category_ids: theirs.
    file_names: of the images, in the order of the table.
    table: the objects.
  """

  class_names: tuple[str, ...]
  category_ids: tuple[int, ...]
  file_names: tuple[str, ...]
  table: objects.Table


class _Problems:
  """Counts problems by their kind, with the first ones."""

  def __init__(self):
    self.found: dict[str, list[str]] = {}
    self.counts: dict[str, int] = {}

  def add(self, kind: str, where: str) -> None:
    self.counts[kind] = self.counts.get(kind, 0) + 1
    first = self.found.setdefault(kind, [])
    if len(first) < _FIRST:
      first.append(where)

  def lines(self) -> list[str]:
    return [
      f"{kind}: {count:,} ({printable(', '.join(self.found[kind]))}{', ...' if count > _FIRST else ''})"
      for kind, count in self.counts.items()
    ]


def read(path: str | os.PathLike) -> dict[str, Any]:
  """The content of a file. Raises UserError if it cannot be read, is no JSON, or is not built as COCO's files."""
  try:
    data = epath.Path(path).expanduser().read_bytes()
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
  return loads(data, path)


def loads(data: bytes, path: str | os.PathLike) -> dict[str, Any]:
  """As `read`, of the bytes of a file."""
  try:
    content = json.loads(data)
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path} is not valid JSON: {error}. Copy or export it again") from error
  expected = 'expected {"images": [{...}, ...], "annotations": [{...}, ...], "categories": [{...}, ...]}, as of COCO'
  if not isinstance(content, dict):
    raise UserError(f"{path} has a {type(content).__name__} at the top; {expected}")
  for key in ("images", "annotations", "categories"):
    if key not in content:
      raise UserError(f"{path} has no {key!r}; {expected}")
    if not isinstance(content[key], list) or not all(isinstance(entry, dict) for entry in content[key]):
      raise UserError(f"{path}: {key!r} is not a list of objects; {expected}")
  for key in ("images", "categories"):
    if not content[key]:
      raise UserError(f"{path}: {key!r} is empty")
  return content


def parse(
  content: Mapping[str, Any], path: str | os.PathLike, choose: Callable[[list[dict]], list[dict]] | None = None
) -> Annotations:
  """The annotations of an annotation file's content, of all images or of those that `choose` returns, in its order.

  path: for messages; choose: takes the list of the valid entries of "images".

  Raises UserError with everything that is wrong: ids that are missing, no integers, not unique or unknown; missing or
    invalid values; NaN; RLEs of another size than their image.
  """
  problems = _Problems()
  class_names, category_ids = _categories(content["categories"], problems)
  images = _images(content["images"], problems)
  _refuse(problems, path)
  sizes = {image["id"]: (image["height"], image["width"]) for image in images}
  numbers = {number: label for label, number in enumerate(category_ids)}
  by_image = _annotations(content["annotations"], sizes, numbers, problems)
  _refuse(problems, path)
  images = choose(images) if choose else images
  table = _table(images, by_image, numbers, path)
  return Annotations(class_names, category_ids, tuple(image["file_name"] for image in images), table)


def _refuse(problems, path):
  if problems.counts:
    raise UserError("\n  ".join([f"{path} is not valid:", *problems.lines()]))


def _is_int(value):
  return type(value) is int and abs(value) < 2**63


def _categories(entries, problems):
  found = {}
  for entry in entries:
    number, name = entry.get("id"), entry.get("name")
    if not _is_int(number) or not isinstance(name, str) or not name.strip():
      problems.add("categories without an integer id or a name", _shown(entry))
    elif number in found or name in found.values():
      problems.add("categories with the id or the name of another one", f"{number}: {name}")
    else:
      found[number] = name
  ordered = sorted(found)
  return tuple(found[number] for number in ordered), tuple(ordered)


def _images(entries, problems):
  found, ids, names = [], set(), set()
  for entry in entries:
    number, name = entry.get("id"), entry.get("file_name")
    if not _is_int(number) or not _is_file_name(name):
      problems.add("images without an integer id or a file_name", _shown(entry))
      continue
    sides = entry.get("height"), entry.get("width")
    if not all(_is_int(side) and side > 0 for side in sides) or sides[0] * sides[1] > image_files.MAX_PIXELS:
      problems.add("images without a valid height and width", f"image {number}: {sides[0]} x {sides[1]}")
    if os.path.isabs(name) or ".." in name.split("/") or "\0" in name:
      problems.add("images whose file_name leads out of the directory", f"image {number}: {name}")
    if number in ids:
      problems.add("images with the id of another one", str(number))
    if name in names:
      problems.add("images with the file_name of another one", name)
    ids.add(number)
    names.add(name)
    found.append(entry)
  return found


def _is_file_name(value):
  try:
    return isinstance(value, str) and bool(os.fsencode(value))
  except UnicodeEncodeError:  # half of a surrogate pair
    return False


def _annotations(entries, sizes, numbers, problems):
  """{image id: its valid annotations, in the file's order}."""
  by_image, ids = {}, set()
  for entry in entries:
    number = entry.get("id")
    if not _is_int(number):
      problems.add("annotations without an integer id", _shown(entry))
      continue
    where = f"annotation {number}"
    if number in ids:
      problems.add("annotations with the id of another one", str(number))
    ids.add(number)
    image, category = entry.get("image_id"), entry.get("category_id")
    if not _is_int(image) or image not in sizes:
      problems.add("annotations of unknown images", f"{where}: {image!r}")
      continue
    if not _is_int(category) or category not in numbers:
      problems.add("annotations of unknown categories", f"{where}: {category!r}")
      continue
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, (*box, entry.get("area", 0)))):
      problems.add("annotations without a bbox of four finite numbers, or with another area", f"{where}: {box}")
    elif entry.get("iscrowd", 0) not in (0, 1):
      problems.add("annotations whose iscrowd is not 0 or 1", where)
    else:
      by_image.setdefault(image, []).append(entry)
  return by_image


def _is_number(value):
  return type(value) in (int, float) and abs(value) < 1e30


def _table(images, by_image, numbers, path):
  """The arrays of the images' annotations; what is left out is said."""
  wrong, dropped, kept, counts, ends = _Problems(), _Problems(), [], [], []
  for image in images:
    for entry in by_image.get(image["id"], ()):
      where = f"annotation {entry['id']}"
      try:
        # Exporters write [] or nothing for objects that have a box alone.
        segmentation = entry.get("segmentation") or None
        mask, few = rle.of_segmentation(segmentation, image["height"], image["width"]) if segmentation else (None, 0)
      except ValueError as error:
        wrong.add(f"annotations with {error}", where)
        continue
      if few:
        dropped.add("polygons without three points, left out", where)
      if few and mask is None:
        dropped.add("objects without any other polygon, left out", where)
        continue
      kept.append(entry)
      counts.append(mask and mask["counts"])
    ends.append(len(kept))
  _refuse(wrong, path)
  without = [f"annotation {e['id']}" for e, mask in zip(kept, counts, strict=True) if mask is None]
  if without and len(without) < len(kept):
    for where in without:
      dropped.add("objects without a mask, so that the dataset has boxes alone", where)
  boxes = [entry["bbox"] for entry in kept]
  table = objects.Table(
    image_ids=np.array([image["id"] for image in images], np.int64),
    sizes=np.array([(image["height"], image["width"]) for image in images], np.int32).reshape(-1, 2),
    ends=np.array(ends, np.int64),
    xywh=np.array(boxes, np.float64).reshape(-1, 4),
    labels=np.array([numbers[entry["category_id"]] for entry in kept], np.int64),
    crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in kept], bool),
    areas=np.array([entry.get("area", entry["bbox"][2] * entry["bbox"][3]) for entry in kept], np.float64),
    ids=np.array([entry["id"] for entry in kept], np.int64),
    counts=None if without else directories.Names.of(counts),
  )
  _note_unused(table, dropped)
  if dropped.counts:
    notes.say(f"note: {path}: {'; '.join(dropped.lines())}")
  return table


def _note_unused(table, dropped):
  for number in table.ids[~table.usable & ~table.crowd].tolist():
    dropped.add(
      "objects without area, smaller than a pixel or outside their image, not trained on", f"annotation {number}"
    )


def _shown(entry: Mapping[str, Any] | Sequence[Any]) -> str:
  text = repr({key: value for key, value in entry.items() if key != "segmentation"})
  return text if len(text) < 80 else f"{text[:77]}..."
