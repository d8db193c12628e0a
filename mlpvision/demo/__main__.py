"""Opens a page to try a model: mlpvision demo --weights=RUN

Drop an image on the page. Of a classifier, it shows the most probable classes, the pixels that matter for the first one
(saliency) and the feature maps; of a segmenter, the label map; of a detector, the objects, with at least the score 0.3.
The predictions are those of `mlpvision predict`.

The page is on this machine alone (127.0.0.1); --host=0.0.0.0 opens it to the network, without a password. It needs the
library gradio (pip install 'mlpvision[demo]') and no network. Ctrl-C ends it.
"""

import os
import tempfile
import threading

from absl import flags

from mlpvision import commands

_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, weights or their name.")
_EMA = flags.DEFINE_bool("ema", None, "Use the EMA of the parameters.")
_PREPROCESSING = flags.DEFINE_string("preprocessing", None, commands.PREPROCESSING)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen at.")
_PORT = flags.DEFINE_integer("port", None, "Its port. [the first from 7860 on that is free]", 1, 65535)


def main(argv: list[str]) -> None:
  """Serves the page until Ctrl-C."""
  del argv
  with tempfile.TemporaryDirectory(prefix="mlpvision-demo-") as directory:
    os.environ["GRADIO_TEMP_DIR"] = directory  # of uploaded images, which are removed at the end
    from mlpvision.demo import page

    page.library()
    from mlpvision import trained as trained_lib

    trained = trained_lib.load(_WEIGHTS.value, ema=_EMA.value, preprocessing=_PREPROCESSING.value)
    shown = page.make(trained)
    address = page.serve(shown, _HOST.value, _PORT.value)
    print(f"{address} shows {_WEIGHTS.value}; Ctrl-C ends it", flush=True)
    try:
      threading.Event().wait()
    except KeyboardInterrupt:
      print()
    finally:
      shown.close(verbose=False)


if __name__ == "__main__":
  flags.mark_flag_as_required("weights")
  commands.run(main)
