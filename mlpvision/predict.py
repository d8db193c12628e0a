"""Predicts the classes of images: python -m mlpvision.predict --weights=WORKDIR photo.png ...

Classes have their names in the dataset; ImageNet's WordNet ids are shown with their words.

Of a segmenter, it prints the share of each class in the image. --output=DIR also writes two files for each image:

  DIR/photo.png           the label map, of the image's size: an 8-bit PNG with a palette, whose values are the indices
                          of the classes; photo is the image's name without its suffix
  DIR/photo_overlay.png   the image with the map in translucent colors, and a legend

Of a detector, it prints the objects: score, class, and box as (x1, y1, x2, y2) in pixels. --output=DIR writes

  DIR/photo_overlay.png   the image with boxes, translucent masks, names and scores
  DIR/detections.json     all objects of all images in COCO's result format, which pycocotools' loadRes reads

and --csv=FILE a table of all objects. What is printed and drawn has at least the score of --min_score; JSON and CSV
have everything. An "image_id" is the image's name without its suffix, as a number if it is one; a "category_id" is the
class's index + 1, or COCO's own for its 80 classes.

Images whose files would have the same name are refused: predict them into different directories.
"""

import json
import os

from absl import app, flags

from mlpvision import commands
from mlpvision.errors import UserError, printable

_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weights or their name.")
_EMA = flags.DEFINE_bool("ema", None, "Use the EMA of the parameters.")
_PREPROCESSING = flags.DEFINE_string("preprocessing", None, commands.PREPROCESSING)
_TOP = flags.DEFINE_integer("top", 5, "Number of classes to print, of a classifier.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per image.")
_OUTPUT = commands.define_path("output", None, "Segmentation and detection: the directory to write pictures to.")
_CSV = commands.define_path("csv", None, "Detection: also write all objects to this file.")
_MIN_SCORE = flags.DEFINE_float("min_score", 0.3, "Detection: the lowest score to print and draw.", 0.0, 1.0)


def main(argv: list[str]) -> None:
  """Looks at all files first, so that bad ones are reported before the model is loaded; then one image at a time."""
  if len(argv) < 2:
    raise app.UsageError("name at least one image")
  from mlpvision import tasks, trained
  from mlpvision.data import pixels, transforms
  from mlpvision.reporting import detections, label_maps
  from mlpvision.tasks import detection_results

  transforms.check_all(argv[1:])
  loaded = trained.load(_WEIGHTS.value, ema=_EMA.value, preprocessing=_PREPROCESSING.value)
  segments, detects = loaded.task is tasks.segmentation, loaded.task is tasks.TASKS.get("detection")
  _check_flags(segments, detects)
  suffixes = (".png", "_overlay.png") if segments else ("_overlay.png",)
  files = label_maps.file_names(argv[1:], _OUTPUT.value, suffixes) if _OUTPUT.value else {}
  ids = detection_results.image_ids(argv[1:]) if detects else {}
  results, tables, problems = {}, {}, []
  for path in argv[1:]:
    try:
      (prediction,) = loaded.predict(path, _TOP.value)
    except UserError as error:  # its pixels are damaged
      problems.append(str(error))
      continue
    if files:
      image = pixels.to_array(transforms.open_image(path))
      if segments:
        label_maps.write(files[path], image, prediction)
      else:
        detections.write_overlay(*files[path], image, prediction, _MIN_SCORE.value)
    if detects:
      found = detection_results.as_json(prediction, ids[path])
      results[path], tables[path] = found["detections"], detection_results.table(prediction, path)
      text = detection_results.as_text(prediction, _MIN_SCORE.value)
    else:
      found, text = loaded.task.as_json(prediction), loaded.task.as_text(prediction)
    print(json.dumps({"image": path, **found}) if _JSON.value else f"{printable(path)}\n{text}")
  if files and detects:
    detections.write_results(os.path.join(_OUTPUT.value, "detections.json"), sum(results.values(), []))
  if _CSV.value:
    detections.write_table(_CSV.value, [detection_results.COLUMNS, *sum(tables.values(), [])])
  if problems:
    raise UserError("\n".join(problems))


def _check_flags(segments, detects):
  if _OUTPUT.value and not (segments or detects):
    raise UserError("a classifier predicts no map: --output is for segmenters and detectors; remove it")
  if _CSV.value and not detects:
    raise UserError("--csv is a table of objects, for detectors; remove it")


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
