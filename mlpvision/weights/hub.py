"""Weights on the Hugging Face Hub, through the library huggingface_hub: hf://OWNER/NAME or hf://OWNER/NAME@REVISION."""

from collections.abc import Sequence
import os
import re
import types
from typing import Any

from mlpvision.errors import UserError
from mlpvision.weights.errors import WeightsError, shortened
from mlpvision.weights.timm_config import FILE as CONFIG

_PREFIX = "hf://"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?/?")


def is_address(source: Any) -> bool:
  """Whether a source of weights is on the Hub."""
  return isinstance(source, str) and source.startswith(_PREFIX)


def library() -> types.ModuleType:
  """huggingface_hub, which is not imported before. Raises UserError if it is not installed."""
  try:
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors
  except ImportError as error:
    advice = "the Hugging Face Hub needs a library that is not installed: pip install 'mlpvision[hub]'"
    raise UserError(advice) from error
  return huggingface_hub


def download(source: str, files: Sequence[str]) -> str:
  """The path of the first of `files` that a repository has, with its config.json beside it.

  huggingface_hub keeps both in its own cache, $HF_HOME or ~/.cache/huggingface, which is enough without a network.

  Raises:
    WeightsError: `source` is no address, the Hub has no such repository or file, or it cannot be reached.
    UserError: huggingface_hub is not installed.
  """
  match = _ADDRESS.fullmatch(source)
  if match is None:
    raise WeightsError(
      source, "is no address of the Hugging Face Hub", "It has the form hf://OWNER/NAME or hf://OWNER/NAME@REVISION."
    )
  hub = library()
  repository, revision = match.groups()
  where = dict(repo_id=repository, revision=revision, local_files_only=False)
  _, problem = _fetched(hub, CONFIG, where)
  for name in files:
    if isinstance(problem, hub.errors.LocalEntryNotFoundError):  # no network: it would be waited for once more
      where["local_files_only"] = True
    path, problem = _fetched(hub, name, where)
    if path:
      return path
  raise WeightsError(source, *_explained(hub, problem, repository, files))


def _fetched(hub, name, where):
  """(path, None) of a file of a repository, or (None, exception)."""
  try:
    return hub.hf_hub_download(filename=name, **where), None
  except Exception as error:  # of the Hub's answers, its client and the disk: there are many kinds
    return None, error


def _explained(hub, error, repository, files):
  """(problem, advice) of an exception."""
  errors, login = hub.errors, "If it is private or gated, log in first: hf auth login."
  if isinstance(error, errors.LocalEntryNotFoundError):
    offline = hub.constants.HF_HUB_OFFLINE
    problem = (
      "is not in the cache, and HF_HUB_OFFLINE is set"
      if offline
      else "is not in the cache, and the Hugging Face Hub cannot be reached"
    )
    folder = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return (
      problem,
      f"Download it on a machine with a network (hf download {repository}) and copy {folder}, or name the folder.",
    )
  if isinstance(error, errors.RepositoryNotFoundError | errors.GatedRepoError):
    return "is not on the Hugging Face Hub, or not open to you", login
  if isinstance(error, errors.RevisionNotFoundError):
    return "has no such revision on the Hugging Face Hub", ""
  if isinstance(error, errors.EntryNotFoundError):
    return f"has no weights that can be read: it has neither {' nor '.join(files)}", ""
  return f"could not be downloaded from the Hugging Face Hub ({type(error).__name__}: {shortened(error)})", login
