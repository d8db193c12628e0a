"""Exports a trained model: python -m mlpvision.export --weights=WORKDIR --output=model.stablehlo

--format=stablehlo writes the model with `jax.export`, for any batch size, on CPU, GPU and TPU; a segmenter also for
images of any size, a detector for those of one canvas. --format=onnx writes a classifier for onnxruntime and other
programs that read ONNX, for any batch size. --format=safetensors writes the weights alone, with the names of
timm, the official code, mmsegmentation or mmdetection. See mlpvision/export/formats.py for details.

--format=hub writes a folder for the Hugging Face Hub: model.safetensors, a config.json that timm understands, and a
model card. --push=OWNER/NAME uploads it:

  ... --format=hub --output=DIR --license=apache-2.0 --push=OWNER/NAME
"""

import re

from absl import flags

from mlpvision import commands
from mlpvision.errors import UserError

_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weights or their name.")
_EMA = flags.DEFINE_bool("ema", None, "Export the EMA of the parameters.")
_PREPROCESSING = flags.DEFINE_string("preprocessing", None, commands.PREPROCESSING)
_FORMAT = flags.DEFINE_enum("format", "stablehlo", ["stablehlo", "onnx", "safetensors", "hub"], "What to write.")
_OUTPUT = commands.define_path("output", None, "The file to write; of --format=hub, the folder.")
_PUSH = flags.DEFINE_string("push", None, "hub: upload the folder to OWNER/NAME on the Hugging Face Hub.")
_LICENSE = flags.DEFINE_string("license", None, "hub: the license in the model card, such as apache-2.0.")


def main(argv: list[str]) -> None:
  """Writes the file or folder and prints its path."""
  del argv
  if _FORMAT.value != "hub" and (_PUSH.value or _LICENSE.value):
    raise UserError("--push and --license are for --format=hub")
  if _PUSH.value and not re.fullmatch(r"[\w.-]+/[\w.-]+", _PUSH.value):
    raise UserError(f"--push={_PUSH.value}: must be OWNER/NAME")
  from mlpvision import trained as trained_lib
  from mlpvision.export import formats, hub, onnx
  from mlpvision.weights import hub as hub_lib

  if _PUSH.value:
    hub_lib.library()
  if _FORMAT.value == "onnx":
    onnx.library()
  trained = trained_lib.load(_WEIGHTS.value, ema=_EMA.value, preprocessing=_PREPROCESSING.value)
  if _FORMAT.value == "hub":
    about = dict(license_name=_LICENSE.value, ema=bool(_EMA.value), repository=_PUSH.value)
    hub.to_folder(trained, _OUTPUT.value, **about)
  else:
    formats.FORMATS[_FORMAT.value](trained, _OUTPUT.value)
  print(f"wrote {_OUTPUT.value}")
  if _PUSH.value:
    print(f"pushed to {hub.push(_OUTPUT.value, _PUSH.value)}")


if __name__ == "__main__":
  flags.mark_flags_as_required(["weights", "output"])
  commands.run(main)
