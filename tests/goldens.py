"""Golden files, computed by the original implementations: reads them, and writes them in their published formats."""

import functools
import json
from pathlib import Path
import tempfile

from families import GOLDENS
from flax.traverse_util import unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file
import torch_files

from mlpvision import weights
from mlpvision.weights import tables

DATA = Path(__file__).parent / "data"


def read(name):
  """(meta, {original's name: array}, other arrays) of a golden file; meta: the constructor's arguments."""
  with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
    arrays = dict(file)
  meta = json.loads(bytes(arrays.pop("meta"))) if "meta" in arrays else {}
  params = {key.removeprefix("param/"): arrays.pop(key) for key in list(arrays) if key.startswith("param/")}
  return meta, params, arrays


def write(directory, name, params=None):
  """The path of a golden file's parameters, written in their published format."""
  suffix, _ = GOLDENS[name]
  params = read(name)[1] if params is None else params
  path = directory / f"{name}{suffix}"
  if suffix == ".npz":
    np.savez(path, **params)
  elif suffix == ".pth":
    torch_files.save(path, params)
  else:
    save_file(params, path)
  return path


@functools.cache
def loaded(name):
  """(module, parameters, info) of a golden file; tests must not change them."""
  with tempfile.TemporaryDirectory() as directory:
    return weights.load(write(Path(directory), name), **GOLDENS[name][1])


def ours(state):
  """Our parameters, from {the original's name: array}."""
  _, table = tables.identify(list(state))
  found = {name: table.ours(name) for name in state if not table.skips(name)}
  return unflatten_dict(
    {path: transform(np.asarray(state[name])) for name, (path, transform) in found.items()}, sep="/"
  )


def apply(module, params, images, **kwargs):
  with jax.default_matmul_precision("highest"):
    return jax.jit(lambda p, x: module.apply({"params": p}, x, **kwargs))(params, images)


def logits_and_maps(module, params, images):
  with jax.default_matmul_precision("highest"):
    return jax.jit(lambda p, x: (module.apply(p, x), module.apply(p, x, method="features")))({"params": params}, images)


def relative_error(actual, expected):
  return np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected)


def error_of_logits(name):
  """The relative error of a golden file's logits, by what the module's code is now: tests of traps change it."""
  module, params, _ = loaded(name)
  _, _, arrays = read(name)
  return relative_error(apply(module, params, arrays["input"]), arrays["out/logits"])


def error_of_first_stage(name):
  """The same of the first map of a pyramid, which takes less to compile."""
  module, params, _ = loaded(name)
  _, _, arrays = read(name)
  short = module.clone(**{key: getattr(module, key)[:1] for key in ("hidden_dim", "depths", "mlp_ratio")})
  return relative_error(apply(short, params, arrays["input"], method="features")[0], arrays["out/stage0"])


def shapes(model, height, width=None):
  """The shapes of the model's parameters for images of this size; computes nothing."""
  images = jax.ShapeDtypeStruct((1, height, width or height, 3), jnp.float32)
  return jax.tree.map(lambda x: x.shape, jax.eval_shape(model.init, jax.random.key(0), images)["params"])
