"""Averages checkpoints: python -m mlpvision.average --weights=CHECKPOINT,CHECKPOINT --output=mean.safetensors

This is stochastic weight averaging (arXiv 1803.05407) over checkpoints. The file has the mean of the parameters and, of
a model with batch normalization, of its statistics; evaluate, predict and export take it like any weight file.

The checkpoints must be of one run, or of runs that started from the same weights: parameters of unrelated runs have no
meaningful mean. A run keeps several with --config.checkpoint.keep=5.
"""

from absl import app, flags

from mlpvision import commands
from mlpvision.errors import UserError

_WEIGHTS = flags.DEFINE_list("weights", None, "Two or more of WORKDIR/checkpoints/STEP, workdirs or weights.")
_EMA = flags.DEFINE_bool("ema", None, "Average the EMAs of the parameters.")
_PREPROCESSING = flags.DEFINE_string("preprocessing", None, commands.PREPROCESSING)
_OUTPUT = commands.define_path("output", None, "The file to write, such as mean.safetensors.")


def main(argv: list[str]) -> None:
  """Reads one checkpoint after the other, and writes the file."""
  if len(argv) > 1:
    raise app.UsageError(f"{argv[1]}: separate the checkpoints with commas, without spaces")
  from mlpvision.average import mean
  from mlpvision.export import formats

  averaged = mean.average(_WEIGHTS.value, ema=_EMA.value, preprocessing=_PREPROCESSING.value)
  try:
    formats.to_safetensors(averaged, _OUTPUT.value)
  except OSError as error:
    raise UserError(f"--output={_OUTPUT.value} cannot be written: {error.strerror}") from error
  print(f"wrote {_OUTPUT.value}, the mean of {len(_WEIGHTS.value)} checkpoints")


if __name__ == "__main__":
  flags.mark_flags_as_required(["weights", "output"])
  commands.run(main)
