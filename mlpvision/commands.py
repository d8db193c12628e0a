"""What all commands share: flags, and errors that a person can read."""

import os
import sys

from absl import app, flags, logging

from mlpvision.errors import UserError


def run(main):
  """Runs main(argv) under absl; a UserError becomes one message and exit code 2."""

  # TensorFlow, which only writes TensorBoard's files here, greets on stderr at length.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

  def guarded(argv):
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)
    try:
      main(argv)
    except UserError as error:
      print(f"error: {error}", file=sys.stderr)
      sys.exit(2)
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      sys.exit(130)

  app.run(guarded)
