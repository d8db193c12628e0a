"""Exports a trained model: python -m mlpvision.export --weights=WORKDIR --output=model.stablehlo

--format=stablehlo writes the model with `jax.export`, for any batch size, on CPU, GPU and TPU; a segmenter also for
images of any size, a detector for those of one canvas. --format=safetensors writes the weights alone, with the names of
timm, the official code, mmsegmentation or mmdetection. See mlpvision/export/formats.py for details.
"""

from absl import flags

from mlpvision import commands

_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weights or their name.")
_EMA = flags.DEFINE_bool("ema", None, "Export the EMA of the parameters.")
_PREPROCESSING = commands.define_preprocessing()
_FORMAT = flags.DEFINE_enum("format", "stablehlo", ["stablehlo", "safetensors"], "The file's format.")
_OUTPUT = commands.define_path("output", None, "The file to write.")


def main(argv: list[str]) -> None:
  """Writes the file and prints its path."""
  del argv
  from mlpvision import trained
  from mlpvision.export import formats

  formats.FORMATS[_FORMAT.value](
    trained.load(_WEIGHTS.value, ema=_EMA.value, preprocessing=_PREPROCESSING.value), _OUTPUT.value
  )
  print(f"wrote {_OUTPUT.value}")


if __name__ == "__main__":
  flags.mark_flags_as_required(["weights", "output"])
  commands.run(main)
