"""How fast a step is: forward, in training, as the config has it, and its matrix products alone; beside PyTorch."""

from collections.abc import Sequence
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import tempfile
from typing import Any

import ml_collections

from mlpvision import commands
from mlpvision.benchmark import own_step
from mlpvision.benchmark.contender import Contender
from mlpvision.errors import UserError
from mlpvision.plan import chips

_KINDS = {"forward": 1, "train": 3}  # and how many times the forward pass's multiply-accumulates they do


@dataclasses.dataclass
class Result:
  """What a contender says of itself, and the seconds of the fastest of each of its calls so far."""

  name: str
  facts: dict[str, Any]
  cpu: dict[str, float] = dataclasses.field(default_factory=dict)
  wall: dict[str, float] = dataclasses.field(default_factory=dict)

  def add(self, call: str, cpu: float, wall: float) -> None:
    """Takes a turn in."""
    self.cpu[call] = min(cpu, self.cpu.get(call, cpu))
    self.wall[call] = min(wall, self.wall.get(call, wall))


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
  own_step.check(config)
  torch_steps = _torch_steps() if with_peers else None
  results = []
  with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:

    def add(name, make, *arguments):
      contender = Contender(name, make, config.to_dict(), directory, *arguments)
      stack.callback(contender.close)
      results.append(Result(name, contender.facts))
      contenders.append(contender)

    contenders = []
    print("compiling ...", flush=True)
    add("ours", own_step.make)
    ours = results[0].facts
    config.model.dtype = ours["dtype"]
    if with_peers:
      device = {"cpu": "cpu", "gpu": "cuda"}.get(ours["platform"])
      if device is None:
        raise UserError(f"--peers: PyTorch is compared on CPU and GPU only, not on {ours['platform']}")
      for name, compiled in (("PyTorch eager", False), ("PyTorch compile", True)):
        add(name, torch_steps.make, device, compiled)
    print(f"measuring, {num_rounds} rounds ...", flush=True)
    for _ in range(num_rounds):
      for call in ours["calls"]:
        for contender, result in zip(contenders, results, strict=True):
          if call in result.facts["calls"]:
            result.add(call, *contender.turn(call))
  print(table(config, results, num_rounds))
  if json_path:
    whole = {r.name: {"facts": r.facts, "cpu_seconds": r.cpu, "seconds": r.wall} for r in results}
    pathlib.Path(json_path).write_text(json.dumps(whole, indent=2) + "\n")


def table(config: ml_collections.ConfigDict, contenders: Sequence[Result], num_rounds: int) -> str:
  """What was found, as text; ours first."""
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


def _torch_steps():
  problems = []
  if not all(map(importlib.util.find_spec, ("torch", "timm"))):
    problems.append("--peers needs PyTorch and timm: pip install 'mlpvision[torch]'")
  try:
    module = commands.of_repository("benchmarks.torch_steps", "--peers")
  except UserError as error:
    problems.append(str(error))
  if problems:
    raise UserError("; ".join(problems))
  return module
