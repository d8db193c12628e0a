"""Peak figures of chips, and descriptions of slices and machines to compile for without having them.

TPUs: peak in bfloat16, memory, bandwidth and largest pod per chip from docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,
tpu7x}; tpu7x's bandwidth is from the Pallas tables of jax 0.10.2. The memory available to a program is from libtpu
0.0.42.1's message for one that does not fit ("exceeds available HBM (15.75G)").

The clock converts the compiler's cycles to time. It follows from the published peak if each of a published number of
matrix units does 128 x 128 multiply-adds per cycle: v5e 197 T = 4 x 128 x 128 x 2 x 1.50 GHz, v5p 459 T = 8 x 128 x 128
x 2 x 1.75 GHz, v4 275 T = 8 x 128 x 128 x 2 x 1.05 GHz (as in its paper, arXiv 2304.01433). For v6e and tpu7x, libtpu
assumes more multiply-adds per cycle than two published 256 x 256 units can do, so the clock is None and no time is
estimated.

GPUs: peaks in bfloat16 without sparsity and bandwidths from NVIDIA's data sheets of the SXM versions with 80 GB (A100,
H100) and 141 GB (H200). The memory available to a program is JAX's default share (XLA_PYTHON_CLIENT_MEM_FRACTION).
"""

from collections.abc import Sequence
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from mlpvision.errors import UserError
from mlpvision.plan import gpus


@dataclasses.dataclass(frozen=True)
class Chip:
  """A JAX device: a TPU chip, half of one if devices_per_chip is 2, or a GPU.

  Attributes:
    name: such as "v5e".
    hbm: GiB of memory available to a program.
    tflops: peak in bfloat16, TFLOP/s.
    bandwidth: of the memory, GB/s.
    clock: GHz, or None.
    dims: number of dimensions of a slice; GPUs have two (hosts, GPUs per host).
    pod: chips in the largest slice.
    devices_per_chip: 1 or 2.
    kind: "TPU" or "GPU".
  """

  name: str
  hbm: float
  tflops: float
  bandwidth: float
  clock: float | None
  dims: int
  pod: int
  devices_per_chip: int = 1
  kind: str = "TPU"


_GPU = dict(clock=None, dims=2, pod=1024, kind="GPU")
_JAX_TAKES = 0.75
CHIPS = {
  chip.name: chip
  for chip in (
    Chip("v4", hbm=30.75, tflops=275, bandwidth=1200, clock=1.05, dims=3, pod=4096),
    Chip("v5e", hbm=15.75, tflops=197, bandwidth=819, clock=1.5, dims=2, pod=256),
    Chip("v5p", hbm=95.74, tflops=459, bandwidth=2765, clock=1.75, dims=3, pod=8960),
    Chip("v6e", hbm=31.25, tflops=918, bandwidth=1638, clock=None, dims=2, pod=256),
    Chip("tpu7x", hbm=94.75, tflops=2307 / 2, bandwidth=7400 / 2, clock=None, dims=3, pod=9216, devices_per_chip=2),
    Chip("a100", hbm=gpus.memory_gib("a100", _JAX_TAKES), tflops=312, bandwidth=2039, **_GPU),
    Chip("h100", hbm=gpus.memory_gib("h100", _JAX_TAKES), tflops=989, bandwidth=3352, **_GPU),
    Chip("h200", hbm=gpus.memory_gib("h200", _JAX_TAKES), tflops=989, bandwidth=4800, **_GPU),
  )
}

# {JAX's device_kind: name}
_KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e"}
_KINDS |= {"NVIDIA A100-SXM4-80GB": "a100", "NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200"}

_FORMS = """Give one or more of these, separated by commas:
  v5e:1x1  v5e:2x2  v5e:2x4  v5e:4x4  v5e:4x8  v5e:8x8  v5e:8x16  v5e:16x16, and the same for v6e
  v4:2x2x1  v5p:2x2x2  v5p:2x2x4  v5p:2x4x4  v5p:4x4x4  tpu7x:2x2x1 and so on, larger ones in multiples of 4
  a100:1  a100:8  a100:2x8 (two machines with eight GPUs each), and the same for h100 and h200"""
# Several plans may run at once, and no metadata server knows this TPU; the rest silences warnings.
_ENVIRONMENT = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-16",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
}


def peak_flops(device_kind: str) -> float | None:
  """A device's peak in bfloat16, in FLOP/s; None if unknown."""
  return CHIPS[_KINDS[device_kind]].tflops * 1e12 if device_kind in _KINDS else None


def parse(topology: str) -> tuple[Chip, tuple[int, ...]]:
  """The chip and the shape of a slice: (4, 4) for "v5e:4x4", (1, 8) for "h100:8". UserError for other names."""
  match = re.fullmatch(r"([a-z]\w*):(\d+(?:x\d+)*)", topology)
  if not match or match[1] not in CHIPS:
    raise UserError(f"--topology={topology!r}: not a known TPU slice or group of GPUs. {_FORMS}")
  chip, shape = CHIPS[match[1]], tuple(int(size) for size in match[2].split("x"))
  if chip.kind == "GPU" and len(shape) == 1:
    shape = (1, *shape)
  if len(shape) != chip.dims or not 1 <= math.prod(shape) <= chip.pod:
    raise UserError(
      f"--topology={topology}: slices of {chip.name} have {chip.dims} dimensions and at most {chip.pod:,} chips."
      f" {_FORMS}"
    )
  return chip, shape


def devices(topology: str) -> Sequence[Any]:
  """Descriptions of a slice's devices, for a mesh; nothing can run on them.

  Raises:
    UserError: no such slice, or libtpu or the CUDA plugin is not installed.
  """
  chip, shape = parse(topology)
  if chip.kind == "GPU":
    return gpus.devices(chip.name, shape)
  if importlib.util.find_spec("libtpu") is None:
    raise UserError(
      "compiling for a TPU needs libtpu, which is not installed (a TPU is not needed): pip install 'mlpvision[plan]'\n"
      "The download is 210 MB, under Google's own license, for Linux on x86-64."
    )
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  import jax
  from jax.experimental import topologies

  options = {}
  if shape in ((1, 1), (1, 1, 1)):
    options["chips_per_host_bounds"] = (1, 1, 1)
  if chip.name == "v4":
    options["chip_config_name"] = "megacore"  # one device for both cores of a chip, as JAX on v4
  try:
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
  except jax.errors.JaxRuntimeError as error:
    raise UserError(f"--topology={topology}: {str(error).splitlines()[0]}. {_FORMS}") from error
