"""Predicts the classes of images: python -m mlpvision.predict --weights=WORKDIR photo.png ...

Classes have their names in the dataset; ImageNet's WordNet ids are shown with their words.

Of a segmenter, it prints the share of each class in the image. --output=DIR also writes two files for each image:

  DIR/photo.png           the label map, of the image's size: an 8-bit PNG with a palette, whose values are the indices
                          of the classes; photo is the image's name without its suffix
  DIR/photo_overlay.png   the image with the map in translucent colors, and a legend

Images whose files would have the same name are refused: predict them into different directories.
"""

import json

from absl import app, flags

from mlpvision import commands
from mlpvision.errors import UserError, printable

_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weight file or published name.")
_EMA = flags.DEFINE_bool("ema", None, "Use the EMA of the parameters.")
_TOP = flags.DEFINE_integer("top", 5, "Number of classes to print, of a classifier.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per image.")
_OUTPUT = commands.define_path("output", None, "Segmentation: the directory to write label maps and overlays to.")


def main(argv: list[str]) -> None:
  """Looks at all files first, so that bad ones are reported before the model is loaded; then one image at a time."""
  if len(argv) < 2:
    raise app.UsageError("name at least one image")
  from mlpvision import tasks, trained
  from mlpvision.data import pixels, transforms
  from mlpvision.reporting import label_maps

  transforms.check_all(argv[1:])
  files = label_maps.file_names(argv[1:], _OUTPUT.value) if _OUTPUT.value else {}
  loaded = trained.load(_WEIGHTS.value, ema=_EMA.value)
  if files and loaded.task is not tasks.segmentation:
    raise UserError("a classifier predicts no map: --output is for segmenters; remove it")
  problems = []
  for path in argv[1:]:
    try:
      (prediction,) = loaded.predict(path, _TOP.value)
    except UserError as error:  # its pixels are damaged
      problems.append(str(error))
      continue
    if files:
      label_maps.write(files[path], pixels.to_array(transforms.open_image(path)), prediction)
    if _JSON.value:
      print(json.dumps({"image": path, **loaded.task.as_json(prediction)}))
    else:
      print(printable(path), loaded.task.as_text(prediction), sep="\n")
  if problems:
    raise UserError("\n".join(problems))


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
