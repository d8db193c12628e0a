"""A step that cannot fit is refused with flags that make it fit; what is free is read where a machine says it."""

import jax
import pytest

from mlpvision.errors import UserError
from mlpvision.training import loop, memory, setup

_GIB = 2**30
# Mixer-B/16 with 512 images.
_STEP = dict(needed=int(98.5 * _GIB), temporaries=int(98.2 * _GIB), batch=2**20, params=226 * 2**20)


def _files(root, **contents):
  for name, text in contents.items():
    path = root / name.replace("__", "/").replace("_dot_", ".")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_is_free_is_the_machine_s_or_the_container_s(tmp_path):
  assert memory.host_bytes() > 2**20
  _files(tmp_path, proc__meminfo="MemTotal: 16 kB\nMemAvailable:    12 kB\n")
  assert memory.host_bytes(tmp_path) == 12 * 1024
  _files(tmp_path, proc__self__cgroup="0::/user/app\n", sys__fs__cgroup__user__app__memory_dot_max="max\n")
  assert memory.host_bytes(tmp_path) == 12 * 1024
  # A limit of a group above counts too, without the cached files.
  of_group = {"max": "9000\n", "current": "4000\n", "stat": "anon 1\ninactive_file 1500\n"}
  _files(tmp_path, **{f"sys__fs__cgroup__user__memory_dot_{name}": text for name, text in of_group.items()})
  assert memory.host_bytes(tmp_path) == 9000 - 4000 + 1500
  _files(tmp_path, proc__self__cgroup="5:cpu:/\n4:memory:/docker/1\n")
  old = {"limit_in_bytes": "7000", "usage_in_bytes": "6900"}  # in a container, whose path is not there
  _files(tmp_path, **{f"sys__fs__cgroup__memory__memory_dot_{name}": text for name, text in old.items()})
  assert memory.host_bytes(tmp_path) == 100


@pytest.mark.parametrize(
  ("free", "flags"),
  [
    (90, ["accumulation_steps=2", "model.remat=block", "data.batch_size=256"]),
    (16, ["accumulation_steps=8", "data.batch_size=64"]),
    (3, ["accumulation_steps=64", "data.batch_size=8"]),
    (0.8, ["data.batch_size=1"]),
    (0.2, []),
  ],
)
def test_the_flags_that_make_it_fit(small_config, free, flags):
  small_config.data.batch_size = 512
  said = memory.advice(small_config, shards=1, free=int(free * _GIB), **_STEP)
  assert [line.split()[0].removeprefix("--config.") for line in said.splitlines() if "--config" in line] == flags
  assert flags or "Not even one image" in said
  assert "remat" not in memory.advice(small_config, shards=1, free=90 * _GIB, **_STEP, recomputes=False)


def test_flags_divide_the_batch_over_the_devices(small_config):
  small_config.data.batch_size, small_config.augment.mixup = 96, 0.2
  said = memory.advice(
    small_config, shards=8, needed=10 * _GIB, temporaries=10 * _GIB, batch=0, params=0, free=4 * _GIB
  )
  assert "accumulation_steps=3 " in said
  assert "data.batch_size=32 " in said


def test_what_the_flags_say_is_true_of_a_compiled_step(small_config):
  """The temporaries of a step are in proportion to its images, or to those of a part."""
  small_config.data.batch_size = 640
  found = []
  for steps in (1, 4):
    small_config.accumulation_steps = steps
    parts = setup.make_parts(small_config, num_images=4000, num_classes=10, devices=jax.devices()[:1])
    compiled, _ = setup.compile_step(parts)
    found.append(compiled.memory_analysis().temp_size_in_bytes)
  assert found[1] < 0.35 * found[0]


def test_a_step_that_cannot_fit_is_refused_before_it_starts(small_config, tmp_path, data_dir):
  small_config.data.update(batch_size=4 * 10**6, workers=0)
  small_config.update(duration="2 steps")
  small_config.optim.schedule.warmup = "0 steps"
  with pytest.raises(UserError, match=r"a step takes [\d.]+ GiB of memory beside the state .* are free\."):
    loop.train_and_evaluate(small_config, tmp_path)
  assert not (tmp_path / "checkpoints").exists() or not any((tmp_path / "checkpoints").iterdir())


def test_parameters_that_cannot_fit_are_refused(small_config):
  small_config.model.hidden_dim = 2**20  # more parameters than any machine has room for
  parts = setup.make_parts(small_config, num_images=4000, num_classes=10)
  with pytest.raises(UserError, match=r"the parameters, their gradients .* take [\d.]+ GiB on each device"):
    memory.check_state(parts)


def test_the_device_s_own_words_are_one_message():
  message = r"out of memory: .*\n.*\n +--config.accumulation_steps=N"
  with pytest.raises(UserError, match=message), memory.readable_errors():
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 105739525440 bytes.\nat ...")
  with pytest.raises(jax.errors.JaxRuntimeError), memory.readable_errors():
    raise jax.errors.JaxRuntimeError("INTERNAL: something else")
