"""Exports a trained model as a folder for the Hugging Face Hub, and uploads it."""

import json
import os
import pathlib

from mlpvision.errors import UserError
from mlpvision.export import formats, model_card, timm_config
from mlpvision.trained import Trained
from mlpvision.weights import hub
from mlpvision.weights.errors import shortened
from mlpvision.weights.files import replacing

FILES = ["model.safetensors", "config.json", "README.md"]


def to_folder(
  trained: Trained,
  path: str | os.PathLike,
  *,
  license_name: str | None = None,
  ema: bool = False,
  repository: str | None = None,
) -> None:
  """Writes PATH/model.safetensors, config.json and README.md, and makes the folder.

  mlpvision loads the folder again, and timm too if it has the architecture: `timm.create_model("local-dir:PATH",
  pretrained=True)`. The weights have timm's names where it has the family, and the official code's or ours otherwise.

  license_name, ema, repository: for the card, see `model_card.text`.
  """
  folder = pathlib.Path(path)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    formats.to_safetensors(trained, folder / "model.safetensors")
    about = {"repository": repository} if repository else {}
    card = model_card.text(trained, license_name=license_name, ema=ema, **about)
    for name, text in {"config.json": json.dumps(timm_config.config(trained), indent=2), "README.md": card}.items():
      with replacing(folder / name) as temporary:
        pathlib.Path(temporary).write_text(text, encoding="utf-8")
  except OSError as error:
    raise UserError(f"{folder} cannot be written: {error.strerror}") from error


def push(path: str | os.PathLike, repository: str) -> str:
  """Uploads `FILES` of a folder to OWNER/NAME on the Hub, which is made if necessary: the address of its page.

  Raises UserError: huggingface_hub is not installed or has no login, or the Hub refuses or cannot be reached.
  """
  api = hub.library().HfApi()
  try:
    url = api.create_repo(repository, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=path, allow_patterns=FILES, commit_message="Export of mlpvision")
  except Exception as error:  # of the Hub's answers and its client: there are many kinds
    reason = shortened(str(error).strip().split("\n")[0] or type(error).__name__, 500)
    advice = "Log in with hf auth login, or set HF_TOKEN. The folder is complete: the same command tries again"
    raise UserError(f"{path} could not be pushed to {repository}: {reason}. {advice}") from error
  return str(url)
