"""Files of 88M and 208M parameters load within 20 CPU-seconds and three times their size in memory (-m slow)."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
import torch_files

from mlpvision import models, weights

# Runs in a separate process, so that the peak includes the interpreter, JAX and the file's pages. Does not use
# getrusage, because a process inherits its parent's maximum.
_LOAD = """
import json, pathlib, re, sys, time
from mlpvision import weights
_, params, info = weights.load(sys.argv[1], **json.loads(sys.argv[2]))
seconds = time.process_time()
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([seconds, peak, info.model_name, info.head]))
"""


def random_params(name):
  image = jnp.zeros((1, 224, 224, 3))
  shapes = jax.eval_shape(models.create(name).init, jax.random.key(0), image)["params"]
  generator = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: generator.random(leaf.shape, np.float32), shapes)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
  ("name", "suffix", "num_classes"),
  [
    ("asmlp_base", ".pth", 1000),
    ("mixer_l16", ".npz", 10),
    pytest.param("mixer_l16", ".safetensors", 1000, marks=pytest.mark.soak),
  ],
)
def test_time_and_memory(tmp_path, name, suffix, num_classes):
  path = tmp_path / f"weights{suffix}"
  source = path.with_suffix(".safetensors") if suffix == ".pth" else path
  weights.save(source, name, random_params(name))
  if suffix == ".pth":
    torch_files.save(path, load_file(source))
  elif suffix == ".safetensors":  # as others write it, without our metadata
    save_file(load_file(path), path)
  command = [sys.executable, "-c", _LOAD, str(path), json.dumps(dict(num_classes=num_classes))]
  out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
  seconds, peak, model, head = json.loads(out)
  print(f"{path.name} of {name}: {path.stat().st_size / 2**20:.0f} MiB, {seconds:.1f} CPU-s, {peak / 2**20:.0f} MiB")
  assert (model, head) == (name, "file" if num_classes == 1000 else "new")
  assert seconds < 20
  assert peak < 3 * path.stat().st_size
