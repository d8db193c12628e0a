"""What the tests of this directory share: golden files written out as a user would have them, and small models."""

import json
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file
import torch_files

DATA = Path(__file__).parents[1] / "data"

# Golden file: (suffix that its original is published in, module attributes that no file tells).
FAMILIES = {
  "mixer_npz": (".npz", {}),
  "mixer_timm": (".safetensors", {}),
  "asmlp": (".pth", {}),
  "ff": (".pth", {}),
  "resmlp_timm": (".safetensors", {}),
  "vit_timm": (".safetensors", dict(num_heads=4)),
  "swin_timm": (".safetensors", {}),
}


def read(name):
  """(meta, {original's name: array}, other arrays) of a golden file."""
  with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
    arrays = dict(file)
  meta = json.loads(bytes(arrays.pop("meta")).decode())
  params = {key.removeprefix("param/"): arrays.pop(key) for key in list(arrays) if key.startswith("param/")}
  return meta, params, arrays


def write(directory, name, params=None):
  """The path of a golden file's parameters in the format that they are published in."""
  suffix, _ = FAMILIES[name]
  params = read(name)[1] if params is None else params
  path = directory / f"{name}{suffix}"
  if suffix == ".npz":
    np.savez(path, **params)
  elif suffix == ".pth":
    torch_files.save(path, params)
  else:
    save_file(params, path)
  return path


def apply(module, params, images, **kwargs):
  with jax.default_matmul_precision("highest"):
    return jax.jit(lambda p, x: module.apply({"params": p}, x, **kwargs))(params, images)


def relative_error(actual, expected):
  return np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected)
