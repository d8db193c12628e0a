"""The objects that a detector finds in an image as text, as rows of a table, and in COCO's result format.

`found` is a `tasks.detection.Prediction`.
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any

import numpy as np

from mlpvision.data import rle
from mlpvision.errors import UserError, printable

COLUMNS = ("image", "category", "score", "x1", "y1", "x2", "y2")

# COCO's 80 classes in the order of their ids, which have gaps.
_COCO = (
  *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
  *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant"),
  *("bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard"),
  *("sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
  *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli"),
  *("carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet"),
  *("tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
  *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_COCO_IDS = dict(zip(_COCO, (i for i in range(1, 91) if i not in _UNUSED), strict=True))


def category_ids(class_names: Sequence[str]) -> tuple[int, ...]:
  """The id of each class in COCO's format: COCO's own for its 80 classes, in any order, otherwise index + 1."""
  if set(class_names) == _COCO_IDS.keys():
    return tuple(_COCO_IDS[name] for name in class_names)
  return tuple(range(1, len(class_names) + 1))


def image_id(name: str) -> int | str:
  """The name of an image's file without its suffix; as a number if it is one, as those of COCO are."""
  stem = os.path.splitext(name)[0]
  return int(stem) if stem.isascii() and stem.isdigit() else stem


def image_ids(names: Mapping[str, str]) -> dict[str, int | str]:
  """{path: its `image_id`}, of {path: name}. Raises UserError if two images have the same."""
  found, owners = {}, {}
  for path, name in names.items():
    found[path] = image_id(name)
    if (owner := owners.setdefault(found[path], path)) != path:
      raise UserError(f"{owner} and {path} both have the image_id {found[path]}: predict them separately")
  return found


def as_text(found: Any, min_score: float = 0.0) -> str:
  """One line for each object with at least this score: "  0.98  7  (45.2, 47.0, 60.1, 85.3)", with x1, y1, x2, y2."""
  lines = []
  for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
    if score >= min_score:
      corners = ", ".join(f"{value:.1f}" for value in box)
      lines.append(f"  {score:.2f}  {printable(found.class_names[label])}  ({corners})")
  return "\n".join(lines) or f"  no objects with a score of at least {min_score:g}"


def as_json(found: Any, image: int | str | None = None) -> dict[str, Any]:
  """The size of the image and its objects in COCO's result format, which also have their class's name.

  image: the "image_id" of the entries, which do not have one if it is None.
  """
  ids, entries = category_ids(found.class_names), []
  for i, (x1, y1, x2, y2) in enumerate(np.asarray(found.boxes, np.float64).tolist()):
    label = int(found.labels[i])
    entry = {} if image is None else {"image_id": image}
    entry |= {
      "category_id": ids[label],
      "category": found.class_names[label],
      "bbox": [x1, y1, x2 - x1, y2 - y1],
      "score": float(found.scores[i]),
    }
    if found.masks is not None:
      entry["segmentation"] = _rle(found.masks[i])
    entries.append(entry)
  height, width = map(int, found.size)
  return {"height": height, "width": width, "detections": entries}


def table(found: Any, path: str) -> list[tuple[Any, ...]]:
  """A row of COLUMNS for each object in the image at a path."""
  return [
    (path, found.class_names[label], float(score), *map(float, box))
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
  ]


def _rle(mask):
  encoded = rle.encode(mask)
  return {"size": list(map(int, encoded["size"])), "counts": encoded["counts"].decode("ascii")}
