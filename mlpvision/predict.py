"""Predicts the classes of images: python -m mlpvision.predict --weights=WORKDIR photo.png ...

Classes have their names in the dataset; ImageNet's WordNet ids are shown with their words.
"""

import json

from absl import app, flags

from mlpvision import commands
from mlpvision.errors import UserError, printable

_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weight file or published name.")
_EMA = flags.DEFINE_bool("ema", None, "Use the EMA of the parameters.")
_TOP = flags.DEFINE_integer("top", 5, "Number of classes to print.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per image.")


def main(argv: list[str]) -> None:
  """Looks at all files first, so that bad ones are reported before the model is loaded; then one image at a time."""
  if len(argv) < 2:
    raise app.UsageError("name at least one image")
  from mlpvision import trained
  from mlpvision.data import transforms

  transforms.check_all(argv[1:])
  loaded = trained.load(_WEIGHTS.value, ema=_EMA.value)
  problems = []
  for path in argv[1:]:
    try:
      (prediction,) = loaded.predict(path, _TOP.value)
    except UserError as error:  # its pixels are damaged
      problems.append(str(error))
      continue
    if _JSON.value:
      print(json.dumps({"image": path, **loaded.task.as_json(prediction)}))
    else:
      print(printable(path), loaded.task.as_text(prediction), sep="\n")
  if problems:
    raise UserError("\n".join(problems))


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
