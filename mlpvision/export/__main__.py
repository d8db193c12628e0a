"""Writes a trained model for other programs: python -m mlpvision.export --weights=WORKDIR --output=model.stablehlo

--format=stablehlo: `jax.export`, any batch size, CPU, GPU and TPU. safetensors: the
weights alone, under timm's or the official code's names. mlpvision/formats.py says what each takes and gives.
"""

from absl import flags

from mlpvision import commands

_WEIGHTS = flags.DEFINE_string("weights", None, "A workdir, WORKDIR/checkpoints/STEP, a weight file or its name.")
_EMA = flags.DEFINE_bool("ema", False, "The moving average of the parameters.")
_FORMAT = flags.DEFINE_enum("format", "stablehlo", ["stablehlo", "safetensors"], "What to write.")
_OUTPUT = flags.DEFINE_string("output", None, "The file to write.")


def main(argv: list[str]) -> None:
  """Loads, writes, and says where."""
  del argv
  from mlpvision import trained
  from mlpvision.export import formats

  formats.FORMATS[_FORMAT.value](trained.load(_WEIGHTS.value, ema=_EMA.value), _OUTPUT.value)
  print(f"wrote {_OUTPUT.value}")


if __name__ == "__main__":
  flags.mark_flags_as_required(["weights", "output"])
  commands.run(main)
