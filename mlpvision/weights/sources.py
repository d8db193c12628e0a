"""Where weights are: under a published name, in a file, in a folder as the Hugging Face Hub has it, or on the Hub."""

import dataclasses
import os

from mlpvision.weights import download, hub, known, names, timm_config
from mlpvision.weights.errors import WeightsError

# Files of a folder, in this order; otherwise, its only file with one of the suffixes.
_FILES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".npz", ".pth", ".pt", ".pth.tar")
_OF_A_RUN = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Source:
  """A weight file. entry: in `known.KNOWN`, if it was named; config: timm's config.json beside it."""

  path: str
  entry: known.Known | None = None
  config: timm_config.Config | None = None


def names_weights(source: str | os.PathLike) -> bool:
  """Whether `source` names weights; otherwise it may be a run, or nothing."""
  source = os.path.expanduser(source)
  is_folder = os.path.isdir(source) and not os.path.isdir(os.path.join(source, _OF_A_RUN))
  return (
    source in known.KNOWN or hub.is_address(source) or os.path.isfile(source) or (is_folder and bool(_files(source)))
  )


def find(source: str | os.PathLike) -> Source:
  """The file of a source, downloaded first if necessary. Raises WeightsError if there is none.

  source: a name in `known.KNOWN`, a file, a folder with one, or hf://OWNER/NAME.
  """
  if isinstance(source, str) and source in known.KNOWN:
    return Source(download.fetch(known.KNOWN[source]), known.KNOWN[source])
  path = hub.download(source, _FILES) if hub.is_address(source) else os.path.expanduser(source)
  if os.path.isdir(path):
    path = _in_folder(path)
  if not os.path.exists(path):
    advice = names.hint(str(source)) or f"Known names: {', '.join(known.KNOWN)}"
    raise WeightsError(path, "is neither a file nor the name of known weights", advice)
  return Source(path, config=timm_config.beside(path))


def _files(folder):
  """The weight files of a folder that may be meant."""
  try:
    found = sorted(name for name in os.listdir(folder) if name.endswith(_SUFFIXES))
  except OSError:
    return []
  return [name for name in _FILES if name in found][:1] or found


def _in_folder(path):
  found = _files(path)
  if len(found) == 1:
    return os.path.join(path, found[0])
  if found:
    raise WeightsError(path, f"is a directory with {len(found)} weight files", f"Name one: {', '.join(found[:10])}")
  raise WeightsError(path, f"is a directory without a weight file, such as {' or '.join(_FILES)}")
