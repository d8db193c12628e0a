"""The steps of `mlpvision.benchmark step` in PyTorch. Needs the extra `torch`."""

from collections.abc import Callable, Mapping
import os
import pathlib
import time
from typing import Any

import numpy as np

from mlpvision import tasks
from mlpvision.benchmark import own_step


def make(
  config: Mapping[str, Any], directory: str | os.PathLike, device: str, form: str, compiled: bool
) -> tuple[dict[str, Any], Callable[[str], tuple[float, float]]]:
  """(facts, turn) as `own_step.serve` returns them.

  Args:
    config: the whole config, as a dict.
    directory: where `own_step.make` has saved its parameters.
    device: "cpu" or "cuda".
    form: of `peers.FORMS`.
    compiled: whether to use torch.compile.
  """
  # Threads that wait by spinning would count as work, and would slow down other processes.
  os.environ["OMP_WAIT_POLICY"] = "passive"
  import torch

  from benchmarks.create import create

  config = own_step.plain(config)
  model = tasks.make_model(config, own_step.NUM_CLASSES)
  with np.load(pathlib.Path(directory, "params.npz")) as params:
    module, layout = create(model, config.data.image_size, params, form)
  module = module.to(device, memory_format=layout)
  torch.set_float32_matmul_precision("high")  # on GPU, for what autocast leaves in float32
  network = torch.compile(module) if compiled else module

  decayed = [p for p in module.parameters() if p.ndim > 1]
  others = [p for p in module.parameters() if p.ndim <= 1]
  groups = [{"params": decayed, "weight_decay": config.optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
  optimizer = torch.optim.AdamW(groups, lr=config.optim.learning_rate, eps=1e-8, fused=True)

  batch = tasks.random_batch(config, own_step.NUM_CLASSES)
  images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous(memory_format=layout).to(device)
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
