"""What `mlpvision.benchmark step --peers` compares our step with: PyTorch in all its forms, and plain flax layers."""

from collections.abc import Iterator
import contextlib
import importlib.util
import os

import ml_collections

from benchmarks import contender, plain_flax
from mlpvision import tasks
from mlpvision.benchmark import own_step
from mlpvision.errors import UserError

# Which of a model's forms in PyTorch is faster depends on the processor: different libraries compute linear layers and
# convolutions.
FORMS = {
  "MlpMixer": ("linear", "1x1 conv"),
  "ResMLP": ("linear", "1x1 conv"),
  "S2MLP": ("linear", "1x1 conv"),
  "ASMLP": ("contiguous", "channels_last"),
}


def check() -> None:
  """Raises UserError unless PyTorch and timm are installed."""
  if not all(map(importlib.util.find_spec, ("torch", "timm"))):
    raise UserError("--peers needs PyTorch and timm: pip install 'mlpvision[torch]'")


@contextlib.contextmanager
def start(config: ml_collections.ConfigDict, directory: str | os.PathLike) -> Iterator[dict[str, contender.Contender]]:
  """{name: `Contender`} for plain flax, and for each form of the model in PyTorch, eager and compiled.

  Args:
    config: the whole config.
    directory: where `own_step.make` has saved its parameters.

  Raises:
    UserError: another family, or JAX runs on something other than a CPU or a GPU.
  """
  import jax

  from benchmarks import torch_steps

  platform = jax.default_backend()
  device = {"cpu": "cpu", "gpu": "cuda"}.get(platform)
  if device is None:
    raise UserError(f"--peers measures PyTorch on CPU and GPU only, not on {platform}")
  family = type(tasks.make_model(own_step.plain(config), own_step.NUM_CLASSES)).__name__
  if family not in FORMS:
    raise UserError(f"there is no other version of {family} here, so --peers is not possible")
  values = config.to_dict(), directory
  with contextlib.ExitStack() as stack:
    peers = {"plain flax": stack.enter_context(contender.start("plain flax", plain_flax.make, *values))}
    for form in FORMS[family]:
      for mode, compiled in (("eager", False), ("compile", True)):
        name = f"torch {form}, {mode}"
        peers[name] = stack.enter_context(contender.start(name, torch_steps.make, *values, device, form, compiled))
    yield peers
