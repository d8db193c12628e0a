"""What data has to say about itself: each message once in every process, with foreign text made printable."""

import functools
import sys

from mlpvision.errors import printable


@functools.cache
def warn(message: str) -> None:
  """On stderr: of an image, say, that is replaced; not once per epoch."""
  print(printable(message), file=sys.stderr, flush=True)


@functools.cache
def say(message: str) -> None:
  """On stdout: of a dataset that is opened."""
  print(printable(message), flush=True)
