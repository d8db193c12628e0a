"""A run of Weights & Biases, through its library: WANDB_MODE, WANDB_PROJECT and so on are read there."""

from collections.abc import Mapping
import io
import os
from typing import Any

from etils import epath
from PIL import Image
import wandb

from mlpvision import workdir as workdir_lib

_SECONDS_TO_FINISH = 300  # of uploading at the end; what is left can be sent later by `wandb sync`


class WandbRun:
  """See `trackers`.

  W&B takes steps in increasing order alone, and a resumed run repeats those since its last checkpoint. Online, W&B says
  which step comes next. Offline it does not, and steps up to last_step count as logged: of a killed process, those that
  W&B had not yet written to its file are missing there.
  """

  def __init__(self, identity: str | None, workdir: epath.PathLike, config: Mapping[str, Any], last_step: int) -> None:
    workdir = os.fspath(workdir)
    own = None if workdir_lib.is_remote(workdir) else os.path.abspath(workdir)
    self._run = wandb.init(
      id=identity,
      resume="allow" if identity else None,
      name=None if identity else os.path.basename(workdir.rstrip("/")),
      config=None if identity else dict(config),
      dir=os.environ.get("WANDB_DIR") or own,
      reinit="create_new",
      settings=wandb.Settings(finish_timeout=_SECONDS_TO_FINISH),
    )
    self.identity = self._run.id
    self._next = last_step + 1 if identity and self._run.offline else self._run.step

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Rows of one step become one."""
    if step >= self._next:
      self._run.log(dict(scalars), step=step)

  def write_picture(self, step: int, name: str, png: bytes) -> None:
    """As a panel of media."""
    self.write_scalars(step, {name: wandb.Image(Image.open(io.BytesIO(png)))})

  def close(self, outcome: str) -> None:
    """A run that was stopped, and can be resumed, is what W&B calls preempted."""
    if outcome == "stopped":
      self._run.mark_preempting()
    self._run.finish(exit_code=0 if outcome == "finished" else 1)
