"""A run of MLflow, through its library: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and so on are read there."""

from collections.abc import Mapping
import concurrent.futures
import io
import os
import time
from typing import Any

from etils import epath
import mlflow
from mlflow.entities import Metric, Param
from PIL import Image

_METRICS, _PARAMS = 1000, 100  # of a request, at most
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowRun:
  """See `trackers`. A thread sends metrics, so that training never waits for a server; what fails is sent again.

  Steps that a resumed run repeats are compared with those that the store has, for each metric.
  """

  def __init__(self, identity: str | None, workdir: epath.PathLike, config: Mapping[str, Any], last_step: int) -> None:
    del last_step
    name = os.path.basename(os.fspath(workdir).rstrip("/"))
    run = mlflow.start_run(run_id=identity) if identity else mlflow.start_run(run_name=name)
    self.identity = run.info.run_id
    self._client, self._last = mlflow.MlflowClient(), {}
    self._pending, self._sending = [], None
    self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mlflow")
    if identity:
      for key in self._client.get_run(identity).data.metrics:
        self._last[key] = max(metric.step for metric in self._client.get_metric_history(identity, key))
      return
    params = [Param(key, str(value)[:500]) for key, value in _flat(config).items()]
    for start in range(0, len(params), _PARAMS):
      self._client.log_batch(self.identity, params=params[start : start + _PARAMS])

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Starts sending. Raises what the last sending raised."""
    now, done = time.time_ns() // 10**6, self._sending
    new = {key: float(value) for key, value in scalars.items() if step > self._last.get(key, -1)}
    self._last |= dict.fromkeys(new, step)
    self._pending += [Metric(key, value, now, step) for key, value in new.items()]
    if done is None or done.done():
      self._sending = self._pool.submit(self._send)
      if done is not None:
        done.result()

  def _send(self):
    while batch := self._pending[:_METRICS]:
      self._client.log_batch(self.identity, metrics=batch)
      del self._pending[: len(batch)]

  def write_picture(self, step: int, name: str, png: bytes) -> None:
    """As the artifact NAME.png, which replaces an earlier one."""
    del step
    self._client.log_image(self.identity, Image.open(io.BytesIO(png)), artifact_file=f"{name}.png")

  def close(self, outcome: str) -> None:
    """Sends what is left first."""
    try:
      self._pool.shutdown()
      self._send()
    finally:
      mlflow.end_run(_STATUS[outcome])


def _flat(tree, prefix=""):
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
  return flat
