"""Writes the files beside it: python tests/data/torch/make.py, with torch 2.13 (see README.md)."""

import argparse
import pathlib
import sys
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
HIDDEN, PATCH, TOKENS, CLASSES = 8, 4, 4, 3


class CfgNode(dict):
  """As yacs.config has it."""


def state_dict():
  """A ResMLP of one block, in the naming of DeiT's repository."""
  generator = torch.Generator().manual_seed(0)

  def random(*shape):
    return torch.randn(*shape, generator=generator)

  state = {
    "patch_embed.proj.weight": random(HIDDEN, 3, PATCH, PATCH),
    "patch_embed.proj.bias": random(HIDDEN),
    "blocks.0.attn.weight": random(TOKENS, TOKENS),
    "blocks.0.attn.bias": random(TOKENS),
    "blocks.0.mlp.fc1.weight": random(4 * HIDDEN, HIDDEN),
    "blocks.0.mlp.fc1.bias": random(4 * HIDDEN),
    "blocks.0.mlp.fc2.weight": random(HIDDEN, 4 * HIDDEN),
    "blocks.0.mlp.fc2.bias": random(HIDDEN),
    "head.weight": random(CLASSES, HIDDEN),
    "head.bias": random(CLASSES),
  }
  for name in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
    state |= {f"{name}.alpha": random(HIDDEN), f"{name}.beta": random(HIDDEN)}
  return state | {"blocks.0.gamma_1": random(HIDDEN), "blocks.0.gamma_2": random(HIDDEN)}


def main():
  sys.modules["yacs"] = types.ModuleType("yacs")
  sys.modules["yacs.config"] = types.ModuleType("yacs.config")
  sys.modules["yacs.config"].CfgNode = CfgNode
  CfgNode.__module__ = "yacs.config"
  state = state_dict()
  np.savez(HERE / "resmlp.npz", **{name: tensor.numpy() for name, tensor in state.items()})

  # A window on a storage (column-major, offset), a parameter, and two names for one storage.
  shared = torch.stack([state["blocks.0.gamma_1"], state["blocks.0.gamma_2"]])
  strange = state | {
    "head.weight": state["head.weight"].T.contiguous().T,
    "patch_embed.proj.weight": torch.nn.Parameter(state["patch_embed.proj.weight"]),
    "blocks.0.gamma_1": shared[0],
    "blocks.0.gamma_2": shared[1],
  }
  model = torch.nn.Linear(2, 2)
  optimizer = torch.optim.AdamW(model.parameters())
  model(torch.ones(1, 2)).sum().backward()
  optimizer.step()
  checkpoint = {
    "model": strange,
    "optimizer": optimizer.state_dict(),
    "lr_scheduler": {"last_epoch": 3, "base_values": [0.1], "none": None},
    "max_accuracy": np.float64(12.5),
    "epoch": 3,
    "config": CfgNode(DATA=CfgNode(IMG_SIZE=8), AMP="O1", LIST=[1, 2]),
    "args": argparse.Namespace(lr=0.1, device=torch.device("cpu"), shape=torch.Size([1, 2])),
  }
  torch.save(checkpoint, HERE / "checkpoint.pth")
  torch.save(checkpoint, HERE / "checkpoint_legacy.pth", _use_new_zipfile_serialization=False)
  halves = {f"module.{name}": t.bfloat16() if "mlp" in name else t.half() for name, t in state.items()}
  torch.save(halves, HERE / "halves.pth")
  torch.save(model, HERE / "whole_module.pth")

  generator = np.random.default_rng(0)
  resized = {}
  for old, new in (((4, 4), (7, 5)), ((7, 7), (3, 4)), ((5, 6), (5, 6))):
    image = generator.normal(size=(*old, 2)).astype(np.float32)
    for antialias in (False, True):
      batch = torch.tensor(image).permute(2, 0, 1)[None]
      out = torch.nn.functional.interpolate(batch, size=new, mode="bicubic", antialias=antialias)
      key = f"{old[0]}x{old[1]}_{new[0]}x{new[1]}_{'antialias' if antialias else 'plain'}"
      resized |= {f"in/{key}": image, f"out/{key}": out[0].permute(1, 2, 0).numpy()}
  np.savez(HERE / "bicubic.npz", **resized)


if __name__ == "__main__":
  main()
