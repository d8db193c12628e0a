"""Predicts the classes of images: python -m mlpvision.predict --weights=WORKDIR photo.png ...

Classes have their names in the dataset; ImageNet's WordNet ids are shown with their words.
"""

import json

from absl import app, flags

from mlpvision import commands
from mlpvision.errors import printable

_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weight file or published name.")
_EMA = flags.DEFINE_bool("ema", None, "Use the EMA of the parameters.")
_TOP = flags.DEFINE_integer("top", 5, "Number of classes to print.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per image.")


def main(argv: list[str]) -> None:
  """Reads all images first, so that unreadable ones are reported before the model is loaded."""
  if len(argv) < 2:
    raise app.UsageError("name at least one image")
  from mlpvision import trained
  from mlpvision.data import transforms

  images = transforms.open_all(argv[1:])
  loaded = trained.load(_WEIGHTS.value, ema=_EMA.value)
  for path, prediction in zip(argv[1:], loaded.predict(images, _TOP.value), strict=True):
    if _JSON.value:
      print(json.dumps({"image": path, **loaded.task.as_json(prediction)}))
    else:
      print(printable(path), loaded.task.as_text(prediction), sep="\n")


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
