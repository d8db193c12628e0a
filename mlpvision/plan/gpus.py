"""Descriptions of GPUs for XLA's compiler, which needs JAX's CUDA plugin but no GPU or driver.

The figures are NVIDIA's, as in XLA's own descriptions (openxla/xla, Apache-2.0,
xla/backends/gpu/target_config/specs: a100_sxm_80, h100_sxm, h200).
"""

from collections.abc import Sequence
import importlib.util
from typing import Any

from mlpvision.errors import UserError

# In the fields of XLA's GpuTargetConfigProto.
_H100 = dict(
  shared_memory_per_core=233472,
  core_count=132,
  fpus_per_core=128,
  memory_bandwidth=3352320000000,
  l2_cache_size=52428800,
  clock_rate_ghz=1.98,
  device_memory_size=84942979072,
  shared_memory_per_block_optin=232448,
  cuda_compute_capability="{ major: 9 }",
)
_A100 = dict(
  shared_memory_per_core=167936,
  core_count=108,
  fpus_per_core=64,
  memory_bandwidth=2039040000000,
  l2_cache_size=41943040,
  clock_rate_ghz=1.41,
  device_memory_size=85100068864,
  shared_memory_per_block_optin=166912,
  cuda_compute_capability="{ major: 8 }",
)
_DIFFERENT = {
  "a100": _A100,
  "h100": _H100,
  "h200": _H100 | dict(memory_bandwidth=4800000000000, device_memory_size=151397597184),
}
_SAME = dict(
  threads_per_block_limit=1024,
  threads_per_warp=32,
  shared_memory_per_block=49152,
  threads_per_core_limit=2048,
  block_dim_limit_x=2147483647,
  block_dim_limit_y=65535,
  block_dim_limit_z=65535,
  registers_per_core_limit=65536,
  registers_per_block_limit=65536,
  thread_dim_limit_x=1024,
  thread_dim_limit_y=1024,
  thread_dim_limit_z=64,
)
# Autotuning would time kernels on a GPU.
COMPILER_OPTIONS = {"xla_gpu_autotune_level": "0"}


def memory_gib(name: str, share: float) -> float:
  """A share of a GPU's memory, in GiB."""
  return share * _DIFFERENT[name]["device_memory_size"] / 2**30


def devices(name: str, shape: tuple[int, int]) -> Sequence[Any]:
  """Descriptions of GPUs, (hosts, GPUs per host), for a mesh. UserError if the CUDA plugin is not installed."""
  if importlib.util.find_spec("jax_cuda13_plugin") is None:
    raise UserError(
      "compiling for a GPU needs JAX's CUDA plugin, which is not installed (a GPU is not needed): pip install"
      " 'mlpvision[cuda]'"
    )
  from jax.experimental import topologies

  return topologies.get_topology_desc(
    platform="cuda", target_config=_description(name), topology="x".join(map(str, (1, *shape)))
  ).devices


def _description(name):
  fields = " ".join(
    f"{field} {value}" if str(value).startswith("{") else f"{field}: {value}"
    for field, value in (_SAME | _DIFFERENT[name]).items()
  )
  cudnn = "dnn_version_info { major: 9 minor: 10 }"
  return f'gpu_device_info {{ {fields} }} platform_name: "CUDA" {cudnn} device_description_str: "{name}"'
