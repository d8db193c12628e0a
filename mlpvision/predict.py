"""The most probable classes of pictures: python -m mlpvision.predict --weights=WORKDIR picture.png ...

A class has its name in the dataset; to ImageNet's WordNet ids their words are added.
"""

import json

from absl import app, flags

from mlpvision import commands

_WEIGHTS = flags.DEFINE_string("weights", None, "A workdir, WORKDIR/checkpoints/STEP, a weight file or its name.")
_EMA = flags.DEFINE_bool("ema", False, "Use the EMA of the parameters.")
_TOP = flags.DEFINE_integer("top", 5, "How many classes to print.", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per picture.")


def main(argv: list[str]) -> None:
  """Reads all pictures first, so that a bad one is named before the model is loaded."""
  if len(argv) < 2:
    raise app.UsageError("name at least one picture")
  from mlpvision import trained
  from mlpvision.data import transforms

  pictures = transforms.open_all(argv[1:])
  found = trained.load(_WEIGHTS.value, ema=_EMA.value)
  for path, prediction in zip(argv[1:], found.predict(pictures, _TOP.value), strict=True):
    if _JSON.value:
      print(json.dumps({"image": path, **found.task.as_json(prediction)}))
    else:
      print(path, found.task.as_text(prediction), sep="\n")


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
