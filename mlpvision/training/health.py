"""Ends a run if the loss or the gradient becomes NaN or infinite."""

from collections.abc import Callable, Iterable, Mapping
import json
from typing import Any

from etils import epath
import jax

from mlpvision.errors import UserError

FILE = "nonfinite.json"
_MOST_IN_A_ROW = 10


class Health:
  """Checks each step one step late, so that the device never waits."""

  def __init__(
    self,
    policy: str,
    *,
    workdir: epath.PathLike,
    image_indices: Callable[[int], Iterable[int]],
    last_checkpoint: Callable[[], int | None],
    is_main: bool = True,
  ) -> None:
    """policy: "stop" ends the run at the first non-finite step, "skip" after ten in a row.

    workdir: nonfinite.json, with the step and its images, is written here, by the process with `is_main`.
    image_indices: step -> indices of its images in the training split.
    last_checkpoint: waits for pending saves, and returns the step of the newest checkpoint or None.
    """
    self._policy, self._workdir, self._is_main = policy, workdir, is_main
    self._image_indices, self._last_checkpoint = image_indices, last_checkpoint
    self._pending, self._in_a_row = None, 0

  def watch(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Takes the metrics of the step that was just started, and checks the previous one as `settle` does."""
    self.settle()
    self._pending = (step, metrics)

  def settle(self) -> None:
    """Waits for the last step; raises UserError if the run must end. Call it before saving or evaluating its state."""
    if self._pending is None:
      return
    (step, metrics), self._pending = self._pending, None
    self._in_a_row = 0 if jax.device_get(metrics["finite"]) else self._in_a_row + 1
    if self._in_a_row >= (1 if self._policy == "stop" else _MOST_IN_A_ROW):
      self._stop(step, {name: float(metrics[name]) for name in ("loss", "grad_norm")})

  def _stop(self, step, values):
    indices = self._image_indices(step - 1).tolist()  # step 1 uses batch 0
    path = epath.Path(self._workdir) / FILE
    if self._is_main:
      path.write_text(json.dumps({"step": step, **{k: str(v) for k, v in values.items()}, "images": indices}))
    saved = self._last_checkpoint()
    kept = f"The newest checkpoint is of step {saved}" if saved is not None else "No checkpoint was saved before"
    raise UserError(
      f"the loss is {values['loss']} and the norm of the gradient is {values['grad_norm']} at step {step}"
      f"{f', the {_MOST_IN_A_ROW}th such step in a row' if self._policy == 'skip' else ''}.\n"
      f"Its batch has the images {', '.join(map(str, indices[:8]))}, ... of the training split (all in {path})."
      f" {kept}.\nTry a lower optim.learning_rate, a longer optim.schedule.warmup or a lower optim.clip_norm in a new"
      " --workdir; optim.nonfinite=skip skips single steps."
    )
