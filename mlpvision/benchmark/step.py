"""The step benchmark as a whole."""

from collections.abc import Sequence
import importlib.util
import json
import os
import pathlib
import tempfile

import ml_collections

from mlpvision.benchmark import steps, workers
from mlpvision.errors import UserError
from mlpvision.plan import chips

_KINDS = {"forward": 1, "train": 3}  # and how many times the forward pass's multiply-accumulates they do


def run(
  config: ml_collections.ConfigDict,
  *,
  batch_size: int,
  num_rounds: int,
  with_peers: bool,
  json_path: str | os.PathLike | None = None,
) -> None:
  """Measures, prints the tables, and writes the JSON file.

  Args:
    config: the whole config; its dataset is not needed.
    batch_size: images per step, on one device.
    num_rounds: turns of each contender.
    with_peers: also PyTorch, eager and compiled.
    json_path: where to write it all as JSON, or None.
  """
  config.data.batch_size = batch_size
  steps.check(config)
  if with_peers and not all(map(importlib.util.find_spec, ("torch", "timm"))):
    raise UserError("--peers needs PyTorch and timm: pip install 'mlpvision[torch]'")
  with tempfile.TemporaryDirectory() as directory:
    contenders = []
    try:
      print("compiling ...", flush=True)
      ours = workers.Worker("ours", steps.make, config.to_dict(), directory)
      contenders.append(ours)
      config.model.dtype = ours.facts["dtype"]
      if with_peers:
        contenders += _peers(config, directory, ours.facts["platform"])
      print(f"measuring, {num_rounds} rounds ...", flush=True)
      for _ in range(num_rounds):
        for call in ours.calls:
          for contender in contenders:
            if call in contender.calls:
              contender.turn(call)
    finally:
      for contender in contenders:
        contender.close()
  print(table(config, contenders, num_rounds))
  if json_path:
    whole = {c.name: {"facts": c.facts, "cpu_seconds": c.cpu, "seconds": c.wall} for c in contenders}
    pathlib.Path(json_path).write_text(json.dumps(whole, indent=2) + "\n")


def table(config: ml_collections.ConfigDict, contenders: Sequence[workers.Worker], num_rounds: int) -> str:
  """What was found, as text; contenders: `workers.Worker`s, the first one being ours."""
  ours, *peers = contenders
  facts, rows = ours.facts, config.data.batch_size
  on_cpu = facts["platform"] == "cpu"
  clock = "CPU time" if on_cpu else "time"
  peak = chips.peak_flops(facts["device"]) if facts["dtype"] == "bfloat16" else None
  lines = [
    f"{config.model.name}: {rows} images of {config.data.image_size} x {config.data.image_size}, {facts['dtype']},"
    f" on one {facts['device']}; {2 * facts['macs'] / 1e9:.3g} GFLOP forward, three times that in training, per image",
    f"the fastest of {num_rounds} rounds; ours / it: how much faster ours is by {clock}",
    "",
    f"{'':30}{'images/s':>10}{'TFLOP/s':>9}{'MFU':>6}{'s/step':>9}{'CPU s':>8}{'ours/it':>9}"
    f"{'compile s':>11}{'memory':>10}",
  ]
  for kind, passes in _KINDS.items():
    for contender in contenders:
      cost = contender.cpu if on_cpu else contender.wall
      own_cost = ours.cpu if on_cpu else ours.wall
      rate = rows / contender.wall[kind]
      flops = 2 * facts["macs"] * passes * rate
      ratio = "" if contender is ours else f"{cost[kind] / own_cost[kind]:.2f}"
      lines.append(
        f"{f'{kind}, {contender.name}':30}{rate:10,.1f}{flops / 1e12:9.3f}{f'{flops / peak:.0%}' if peak else '?':>6}"
        f"{contender.wall[kind]:9.3f}{contender.cpu[kind]:8.3f}{ratio:>9}{_details(contender, kind)}"
      )
    cost, name = ours.cpu if on_cpu else ours.wall, f"{kind} products"
    lines.append(
      f"{f'{kind}, XLA products alone':30}{'':10}{facts['product_flops'][kind] / ours.wall[name] / 1e12:9.3f}{'':6}"
      f"{ours.wall[name]:9.3f}{ours.cpu[name]:8.3f}{'':9}  ours reaches {cost[name] / cost[kind]:.0%} of this ceiling"
    )
  losses = ", ".join(f"{c.name} {c.facts['loss']:.4f}" for c in contenders)
  rate = rows / ours.wall["own"]
  lines.append(
    f"{'the config as it is, ours':30}{rate:10,.1f}{'':9}{'':6}{ours.wall['own']:9.3f}{ours.cpu['own']:8.3f}{'':9}"
    f"{_details(ours, 'own')}"
  )
  lines += [
    "",
    "forward: uint8 images on the device, normalised, to logits. train: that, softmax cross-entropy, backward, AdamW;"
    "\nthe program that training compiles, without augmentation, drop path and moving average, which only the last row"
    f" has.\nfirst loss: {losses}",
  ]
  if peers:
    lines.append(f"PyTorch {peers[0].facts['version']}, with fused AdamW and OMP_WAIT_POLICY=passive")
  return "\n".join(lines)


def _details(contender, kind):
  seconds, memory = contender.facts["compile_seconds"].get(kind), contender.facts["memory"].get(kind)
  return f"{f'{seconds:.0f}' if seconds else '':>11}{f'{memory / 2**20:,.0f} MiB' if memory else '':>10}"


def _peers(config, directory, platform):
  device = {"cpu": "cpu", "gpu": "cuda"}.get(platform)
  if device is None:
    raise UserError(f"--peers: PyTorch is compared on CPU and GPU only, not on {platform}")
  from benchmarks import torch_steps

  found = []
  for name, compiled in (("PyTorch eager", False), ("PyTorch compile", True)):
    found.append(workers.Worker(name, torch_steps.make, config.to_dict(), directory, device, compiled))
  return found
