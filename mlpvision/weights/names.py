"""What a name that is neither a file nor published weights may have meant."""

import contextlib
import difflib
import os
import re

from mlpvision import models
from mlpvision.weights import known

_SHOWN = 6  # of a model with many published weights
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def near(name: str) -> list[str]:
  """Names of published weights that `name` may have meant, nearest first.

  These are the weights of a model or of the start of a name; otherwise, names that are spelled similarly.
  """
  wanted = name.lower().replace("-", "_")
  found = [
    one.name for one in known.KNOWN.values() if wanted == one.model or re.match(rf"{re.escape(wanted)}[._]", one.name)
  ]
  if found:
    return found[:_SHOWN]
  if found := difflib.get_close_matches(wanted, known.KNOWN, n=3):
    return found
  if wanted in models.MODELS:
    return []
  meant = difflib.get_close_matches(wanted, {one.model for one in known.KNOWN.values()}, n=1, cutoff=0.8)
  return near(meant[0]) if meant else []


def _beside(path):
  """Files in the same directory whose names are spelled almost like this one, which does not exist."""
  directory, name = os.path.split(path)
  with contextlib.suppress(OSError):
    return [os.path.join(directory, x) for x in difflib.get_close_matches(name, os.listdir(directory or "."), 1, 0.8)]
  return []


def hint(name: str) -> str:
  """A sentence on what `name` may have meant, without a final period; "" if nothing is near."""
  if found := _beside(name) or near(name):
    return f"Did you mean {' or '.join(found)}?"
  if name in models.MODELS:
    return f"{name} is a model without published weights"
  if _REPOSITORY.fullmatch(name):
    return f"On the Hugging Face Hub, its name would be hf://{name}"
  return ""
