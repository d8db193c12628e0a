"""The steps of `mlpvision.benchmark step` in PyTorch. Needs the extra `torch`."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import importlib.util
import os
import pathlib
import time
from typing import Any

import ml_collections
import numpy as np

from benchmarks import contender
from mlpvision import tasks
from mlpvision.benchmark import own_step
from mlpvision.errors import UserError


def check() -> None:
  """Raises UserError unless PyTorch and timm are installed."""
  if not all(map(importlib.util.find_spec, ("torch", "timm"))):
    raise UserError("--peers needs PyTorch and timm: pip install 'mlpvision[torch]'")


@contextlib.contextmanager
def start(config: ml_collections.ConfigDict, directory: str | os.PathLike) -> Iterator[dict[str, contender.Contender]]:
  """{name: `Contender`} for PyTorch, eager and compiled, on JAX's platform.

  Args:
    config: the whole config.
    directory: where `own_step.make` has saved its parameters.

  Raises:
    UserError: JAX runs on something other than a CPU or a GPU.
  """
  import jax

  platform = jax.default_backend()
  device = {"cpu": "cpu", "gpu": "cuda"}.get(platform)
  if device is None:
    raise UserError(f"--peers measures PyTorch on CPU and GPU only, not on {platform}")
  modes = {"PyTorch eager": False, "PyTorch compile": True}
  with contextlib.ExitStack() as stack:
    yield {
      name: stack.enter_context(contender.start(name, make, config.to_dict(), directory, device, compiled))
      for name, compiled in modes.items()
    }


def make(
  config: Mapping[str, Any], directory: str | os.PathLike, device: str, compiled: bool
) -> tuple[dict[str, Any], Callable[[str], tuple[float, float]]]:
  """(facts, turn) as `own_step.serve` returns them.

  Args:
    config: the whole config, as a dict.
    directory: where `own_step.make` has saved its parameters.
    device: "cpu" or "cuda".
    compiled: whether to use torch.compile.
  """
  # Threads that wait by spinning would count as work, and would slow down other processes.
  os.environ["OMP_WAIT_POLICY"] = "passive"
  import torch

  from benchmarks.create import create

  config = own_step.plain(config)
  model = tasks.make_model(config, own_step.NUM_CLASSES)
  with np.load(pathlib.Path(directory, "params.npz")) as params:
    module = create(model, config.data.image_size, params).to(device)
  torch.set_float32_matmul_precision("high")  # on GPU, for what autocast leaves in float32
  network = torch.compile(module) if compiled else module

  decayed = [p for p in module.parameters() if p.ndim > 1]
  others = [p for p in module.parameters() if p.ndim <= 1]
  groups = [{"params": decayed, "weight_decay": config.optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
  optimizer = torch.optim.AdamW(groups, lr=config.optim.learning_rate, eps=1e-8, fused=True)

  batch = tasks.random_batch(config, own_step.NUM_CLASSES)
  images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous().to(device)
  labels = torch.from_numpy(batch["label"]).long().to(device)
  mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (config.data.mean, config.data.std))
  autocast = torch.autocast(device, torch.bfloat16, enabled=config.model.dtype == "bfloat16")

  def logits():
    normalized = (images / 255 - mean) / std
    with autocast:
      return network(normalized).float()

  def finish():
    if device == "cuda":
      torch.cuda.synchronize()

  def forward():
    module.eval()
    with torch.no_grad():
      logits()
    finish()

  def train():
    module.train()
    loss = torch.nn.functional.cross_entropy(logits(), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    finish()
    return loss

  started = time.perf_counter()
  loss = float(train().detach())
  seconds = time.perf_counter() - started
  facts = {
    "version": torch.__version__,
    "loss": loss,
    "compile_seconds": {"train": seconds} if compiled else {},
    "memory": {"train": torch.cuda.max_memory_allocated()} if device == "cuda" else {},
  }
  return own_step.serve(facts, {"forward": forward, "train": train})
