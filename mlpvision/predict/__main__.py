"""Predicts images: mlpvision predict --weights=WORKDIR photo.png DIRECTORY "photos/**/*.jpg" ...

Images are files; directories, with all images in them and below; patterns in quotes; and, with "-", the paths on the
lines of standard input: find photos -newer last | mlpvision predict --weights=WORKDIR -. They are predicted in batches,
any number of them in constant memory; of many, progress and images/s are on standard error. Images that cannot be read
are listed at the end, with exit code 1: all others are predicted.

Of a classifier, it prints the most probable classes. They have their names in the dataset; ImageNet's WordNet ids are
shown with their words. Of a segmenter, it prints the share of each class in the image, and of a detector the objects:
score, class, and box as (x1, y1, x2, y2) in pixels.

  --json, --json=FILE     one JSON object per image, in place of the text, or in a file, one on each line
  --csv=FILE              a table with a row for each class or object of each image; --top=1: one row per image

Of a segmenter, --output=DIR also writes two files for each image:

  DIR/photo.png           the label map, of the image's size: an 8-bit PNG with a palette, whose values are the indices
                          of the classes; photo is the image's name without its suffix
  DIR/photo_overlay.png   the image with the map in translucent colors, and a legend

Of a detector, --output=DIR writes

  DIR/photo_overlay.png   the image with boxes, translucent masks, names and scores
  DIR/detections.json     all objects of all images in COCO's result format, which pycocotools' loadRes reads

What is printed and drawn of a detector has at least the score of --min_score; JSON and CSV have everything. An
"image_id" is the image's name without its suffix, as a number if it is one; a "category_id" is the class's index + 1,
or COCO's own for its 80 classes.

The name of an image in a directory has the path from there: files are written to DIR/a/photo.png. Images whose files
would have the same name are refused: predict them into different directories.
"""

import itertools
import sys

from absl import app, flags

from mlpvision import commands
from mlpvision.errors import UserError, printable

_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weights or their name.")
_EMA = flags.DEFINE_bool("ema", None, "Use the EMA of the parameters.")
_PREPROCESSING = flags.DEFINE_string("preprocessing", None, commands.PREPROCESSING)
_TOP = flags.DEFINE_integer("top", 5, "Number of classes to print, of a classifier.", lower_bound=1)
_JSON = commands.define_optional_path("json", "Print one JSON object per image, or write them to this file.")
_CSV = commands.define_path("csv", None, "Also write a table of all classes or objects to this file.")
_OUTPUT = commands.define_path("output", None, "Segmentation and detection: the directory to write pictures to.")
_MIN_SCORE = flags.DEFINE_float("min_score", 0.3, "Detection: the lowest score to print and draw.", 0.0, 1.0)


def main(argv: list[str]) -> None:
  """Predicts all images that can be read, and names the others at the end."""
  if len(argv) < 2:
    raise app.UsageError("name at least one image")
  from mlpvision.predict import inputs

  names, problems = inputs.find(argv[1:])
  names_of_stdin = inputs.listed(sys.stdin.buffer, names) if inputs.STDIN in argv[1:] else ()
  if not names and not names_of_stdin:
    raise UserError("\n".join(problems))
  from mlpvision import tasks, trained
  from mlpvision.data import image_files
  from mlpvision.predict import outputs, stream
  from mlpvision.reporting import progress

  loaded = trained.load(_WEIGHTS.value, ema=_EMA.value, preprocessing=_PREPROCESSING.value)
  if loaded.task is not tasks.classification:  # to know which names are the same
    names, names_of_stdin = names | dict(names_of_stdin), ()
  total = len(names) if not names_of_stdin else None
  paths = itertools.chain(names, (path for path, _ in names_of_stdin))
  files = dict(directory=_OUTPUT.value, csv=_CSV.value, json_lines=_JSON.value, min_score=_MIN_SCORE.value)
  count = progress.Count(total)
  with outputs.Outputs(loaded, names, **files) as output:
    for path, found, error in stream.stream(loaded, paths, _TOP.value):
      count.clear()
      try:
        if error is not None:
          raise error
        print(output.add(path, found, as_json=_JSON.value == ""), flush=total is None)
      except image_files.ImageError as problem:
        problems.append(str(problem))
      count.add()
  count.close()
  if problems:
    sys.stdout.flush()
    print(f"error: {len(problems):,} could not be predicted:", *map(printable, problems), sep="\n", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
