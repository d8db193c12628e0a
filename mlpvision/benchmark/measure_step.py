"""Measures a step: forward, training, the config's own step, and their matrix products alone; optionally of peers."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import os
import tempfile
import types
from typing import Any

import ml_collections

from mlpvision.benchmark import own_step
from mlpvision.plan import chips

_KINDS = {"forward": 1, "train": 3}  # {call: its multiply-accumulates, in forward passes}


@dataclasses.dataclass
class Contender:
  """One implementation: its facts, and for each of its calls the CPU seconds and seconds of the fastest so far.

  rounds: {call: [(CPU seconds, seconds) of each turn]}.
  """

  name: str
  facts: dict[str, Any]
  turn: Callable[[str], tuple[float, float]]
  cpu: dict[str, float] = dataclasses.field(default_factory=dict)
  wall: dict[str, float] = dataclasses.field(default_factory=dict)
  rounds: dict[str, list[tuple[float, float]]] = dataclasses.field(default_factory=dict)

  def measure(self, call: str) -> None:
    """Takes a turn."""
    cpu, wall = self.turn(call)
    self.cpu[call] = min(cpu, self.cpu.get(call, cpu))
    self.wall[call] = min(wall, self.wall.get(call, wall))
    self.rounds.setdefault(call, []).append((cpu, wall))


def run(
  config: ml_collections.ConfigDict, batch_size: int, num_rounds: int, *, peers: types.ModuleType | None = None
) -> dict[str, Any]:
  """Measures, prints the table, and returns the results for a JSON file.

  Args:
    config: the whole config. Its dataset is not needed.
    batch_size: images per step, on one device.
    num_rounds: how many turns each contender takes.
    peers: benchmarks.peers, to measure PyTorch and plain flax too.
  """
  config.data.batch_size = batch_size
  if peers:
    peers.check()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves the GPU's memory to PyTorch
  with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
    print("compiling ...", flush=True)
    own_step.use_float32_on_cpu(config)
    contenders = [Contender("ours", *own_step.make(config, directory))]
    if peers:
      for name, contender in stack.enter_context(peers.start(config, directory)).items():
        contenders.append(Contender(name, contender.facts, contender.turn))
    print(f"measuring, {num_rounds} rounds ...", flush=True)
    for _ in range(num_rounds):
      for call in contenders[0].facts["calls"]:
        for contender in contenders:
          if call in contender.facts["calls"]:
            contender.measure(call)
  print(table(config, contenders, num_rounds))
  return {c.name: {"facts": c.facts, "cpu_seconds": c.cpu, "seconds": c.wall, "rounds": c.rounds} for c in contenders}


def table(config: ml_collections.ConfigDict, contenders: Sequence[Contender], num_rounds: int) -> str:
  """The results as text; our step comes first."""
  ours, *peers = contenders
  facts, rows = ours.facts, config.data.batch_size
  on_cpu = facts["platform"] == "cpu"
  peak = chips.peak_flops(facts["device"]) if facts["dtype"] == "bfloat16" else None

  def cost(contender, call):
    return (contender.cpu if on_cpu else contender.wall)[call]

  def row(label, contender, call, flops=None, ratio="", note=""):
    wall, cpu = contender.wall[call], contender.cpu[call]
    rate = "" if call.endswith("products") else f"{rows / wall:,.1f}"
    speed = f"{flops / wall / 1e12:.3f}" if flops else ""
    mfu = f"{flops / wall / peak:.0%}" if flops and peak else ""
    seconds, memory = (contender.facts[key].get(call) for key in ("compile_seconds", "memory"))
    compiling, size = f"{seconds:.0f}" if seconds else "", f"{memory / 2**20:,.0f} MiB" if memory else ""
    return f"{label:30}{rate:>10}{speed:>9}{mfu:>6}{wall:9.3f}{cpu:8.3f}{ratio:>9}{compiling:>11}{size:>10}{note}"

  lines = [
    f"{config.model.name}: {rows} images of {config.data.image_size} x {config.data.image_size}, {facts['dtype']},"
    f" on one {facts['device']}; {2 * facts['macs'] / 1e9:.3g} GFLOP forward, three times that in training, per image",
    f"the fastest of {num_rounds} rounds; ours/it: how many times faster ours is, in {'CPU ' if on_cpu else ''}time",
    "",
    f"{'':30}{'images/s':>10}{'TFLOP/s':>9}{'MFU':>6}{'s/step':>9}{'CPU s':>8}{'ours/it':>9}{'compile s':>11}"
    f"{'memory':>10}",
  ]
  for kind, passes in _KINDS.items():
    for contender in contenders:
      ratio = "" if contender is ours else f"{cost(contender, kind) / cost(ours, kind):.2f}"
      lines.append(row(f"{kind}, {contender.name}", contender, kind, 2 * facts["macs"] * passes * rows, ratio))
    share = cost(ours, f"{kind} products") / cost(ours, kind)
    label, note = f"{kind}, XLA products alone", f"  ours reaches {share:.0%} of this ceiling"
    lines.append(row(label, ours, f"{kind} products", facts["product_flops"][kind], note=note))
  losses = ", ".join(f"{c.name} {c.facts['loss']:.4f}" for c in contenders)
  lines += [
    row("the config's own step, ours", ours, "own"),
    "",
    "forward: uint8 images on the device, normalized, to logits. train: forward, softmax cross-entropy, backward, AdamW"
    "\n(the program that training compiles). Augmentation, drop path and EMA are only in the last row.",
    f"first loss: {losses}",
  ]
  if peers:
    lines.append(f"PyTorch {peers[-1].facts['version']}, with fused AdamW and OMP_WAIT_POLICY=passive")
  return "\n".join(lines)
