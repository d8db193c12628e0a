"""What becomes of predictions: text or JSON, tables, label maps and overlays, one image after the other."""

from collections.abc import Mapping
import contextlib
import json
import os
from typing import Any, Self

from mlpvision import tasks
from mlpvision.data import pixels, transforms
from mlpvision.errors import UserError, printable
from mlpvision.reporting import tables
from mlpvision.tasks import detection_results
from mlpvision.trained import Trained


class Outputs:
  """The files of one command, in whose context they are open."""

  def __init__(
    self,
    trained: Trained,
    names: Mapping[str, str],
    *,
    directory: str | None = None,
    csv: str | None = None,
    json_lines: str | None = None,
    min_score: float = 0.0,
  ) -> None:
    """Opens the files. UserError: two images have the same name, or a file cannot be written.

    names: {path: name} of all images, if there is a directory for pictures or the model is a detector; directory: of
      maps and overlays; csv, json_lines: files; min_score: the lowest that is printed and drawn of a detector.
    """
    self._task, self._min_score = trained.task, min_score
    self._segments, self._detects = self._task is tasks.segmentation, self._task is tasks.TASKS.get("detection")
    if directory and not (self._segments or self._detects):
      raise UserError("a classifier predicts no map: --output is for segmenters and detectors; remove it")
    self._pictures = _pictures(names, directory, self._segments) if directory else {}
    self._ids = detection_results.image_ids(names) if self._detects else {}
    self._stack = contextlib.ExitStack()
    with contextlib.ExitStack() as opened:
      self._table = csv and opened.enter_context(tables.Table(csv, self._task.COLUMNS))
      self._lines = json_lines and opened.enter_context(tables.Objects(json_lines))
      results = os.path.join(directory, "detections.json") if directory and self._detects else None
      self._results = results and opened.enter_context(tables.Objects(results, array=True))
      self._stack = opened.pop_all()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._stack.close()

  def add(self, path: str, found: Any, *, as_json: bool = False) -> str:
    """Writes the prediction of an image, and returns it as text or as a line of JSON.

    Raises ImageError if the image, which is read again for a picture, is no longer there; UserError for other files.
    """
    values = {"image": path, **self._task.as_json(found, *([self._ids[path]] if self._detects else []))}
    if self._pictures:
      self._draw(path, found)
    if self._table:
      self._table.add(self._task.table(found, path))
    if self._lines:
      self._lines.add([values])
    if self._results:
      self._results.add(values["detections"])
    if as_json:
      return json.dumps(values)
    return f"{printable(path)}\n{self._task.as_text(found, *([self._min_score] if self._detects else []))}"

  def _draw(self, path, found):
    from mlpvision.reporting import detections, label_maps

    image = pixels.to_array(transforms.open_image(path))
    if self._segments:
      label_maps.write(self._pictures[path], image, found)
    else:
      detections.write_overlay(*self._pictures[path], image, found, self._min_score)


def _pictures(names, directory, segments):
  from mlpvision.reporting import label_maps

  return label_maps.file_names(names, directory, (".png", "_overlay.png") if segments else ("_overlay.png",))
