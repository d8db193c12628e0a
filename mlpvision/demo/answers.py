"""What the page shows of an image: the task's prediction, and pictures of it."""

from collections.abc import Callable, Iterator
import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

from mlpvision import augment, tasks
from mlpvision.data import pixels, transforms
from mlpvision.draw import figures, maps
from mlpvision.errors import printable
from mlpvision.reporting import curves, detections, label_maps
from mlpvision.trained import Trained

TOP = 5  # classes of a classifier
MIN_SCORE = 0.3  # of objects, as in predict
COLUMNS = ("score", "class", "x1", "y1", "x2", "y2")  # of objects


@dataclasses.dataclass(frozen=True)
class Answers:
  """How a model answers.

  Attributes:
    title: of the prediction.
    captions: of the pictures.
    of: maps the path of an image to what is known of it, first to last: (prediction, *pictures), with None for a
      picture that is still computed. A prediction is {name: share}, or rows of COLUMNS for a detector. Raises UserError
      for an image that cannot be read.
  """

  title: str
  captions: tuple[str, ...]
  of: Callable[[str], Iterator[tuple[Any, ...]]]


def make(trained: Trained) -> Answers:
  """The answers of a model; its programs are compiled for the first image, and used for all others of that size."""
  if trained.task is tasks.classification:
    captions = ("Saliency for the first class", "Feature maps")
    return Answers("Classes", captions, _classifier(trained))
  if trained.task is tasks.segmentation:
    return Answers("Share of the pixels", ("Label map",), lambda path: _segments(trained, path))
  return Answers("Objects", ("Objects",), lambda path: _objects(trained, path))


def _classifier(trained):
  model, params = trained
  saliency, features = maps.compiled_saliency(model), maps.compiled_features(model)

  def of(path):
    row = trained.task.row(path, trained.config_of_task)
    (found,) = trained.of_rows([row], TOP)
    classes = {_name(x): x.probability for x in found}
    yield classes, None, None
    view = trained.preprocessing
    picture, image = row["image"] / 255, np.asarray(augment.normalize(row["image"], view.mean, view.std))
    best = found[0]
    heat = np.asarray(saliency(params, image, trained.class_names.index(best.name)))
    drawn = _picture(
      curves.to_png(figures.saliency(picture, heat, f"{best.words or best.name}, {best.probability:.0%}"))
    )
    yield classes, drawn, None
    colors = maps.colors(features(params, image))
    yield classes, drawn, _picture(curves.to_png(figures.features(picture, colors, model.feature_strides)))

  return of


def _name(prediction):
  name = printable(prediction.name)
  return f"{prediction.words} ({name})" if prediction.words else name


def _segments(trained, path):
  image, found = _dense(trained, path)
  areas = [(i, found.class_names[i], count / found.labels.size) for i, count in found.areas()]
  shares = {printable(name): share for _, name, share in areas}
  yield shares, _picture(label_maps.to_overlay_png(image, found.labels, areas))


def _objects(trained, path):
  image, found = _dense(trained, path)
  objects = [
    [round(float(score), 3), printable(found.class_names[label]), *(round(float(x), 1) for x in box)]
    for score, label, box in zip(found.scores, found.labels, found.boxes, strict=True)
    if score >= MIN_SCORE
  ]
  yield objects, _picture(detections.to_overlay_png(image, found, MIN_SCORE))


def _dense(trained, path):
  image = transforms.open_image(path)
  (found,) = trained.of_rows([trained.task.row(image, trained.config_of_task)])
  return pixels.to_array(image), found


def _picture(png):
  return Image.open(io.BytesIO(png))
