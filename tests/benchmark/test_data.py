"""The loader benchmark: that it counts what it says, and the loader's promise about memory."""

import io
import json
import os
import random

import numpy as np
from PIL import Image
import pytest

from benchmarks import pillow, synthetic, timm_randaugment
from mlpvision.benchmark import measure_data, usage

_BENCHMARK = ("-m", "mlpvision.benchmark", "data", "--config=configs/s2mlp_wide.py")


@pytest.mark.slow
@pytest.mark.soak
def test_all_loaders_are_measured(command, tmp_path):
  path = tmp_path / "result.json"
  small = ("--config.data.batch_size=16", "--config.data.image_size=64", "--config.data.workers=0")
  sizes = ("--synthetic=32", "--rounds=1", "--seconds=0.2")
  code, output = command(*_BENCHMARK, *small, *sizes, "--peers", "--latency_ms=2", f"--json={path}")
  assert code == 0, output
  result = json.loads(path.read_text())
  stages = [stage["name"] for stage in result["stages"]]
  assert stages == ["read", "decode and crop", "RandAugment", "batch", "transfer to cpu"]
  assert all(stage["per_cpu_second"] > 0 for stage in result["stages"])
  loaders = [name for name in result["loaders"] if not name.startswith("ours, 2 ms a read, ")]
  assert len(loaders) == len(result["loaders"]) - 1
  assert loaders == ["ours", f"Pillow, {os.cpu_count()} processes", "tf.data, no RandAugment"]
  for name, rounds in result["loaders"].items():
    assert len(rounds) == 1
    assert all(turn["images"] % 16 == 0 and turn["images"] > 0 and turn["cpu"] > 0 for turn in rounds), name
    assert name in output
  assert "imagenet_shaped" in output


def test_our_loader_alone_is_measured_in_this_process(small_config, capsys):
  found = measure_data.run(small_config, seconds=0.05, num_rounds=2)
  assert list(found["loaders"]) == ["ours"]
  assert all(turn["images"] >= 40 and turn["memory"] is None for turn in found["loaders"]["ours"])
  assert "mnist5k:train: 4,000 images to 28 x 28" in capsys.readouterr().out


def test_what_is_missing_is_said_at_once(here):
  code, output = here(*_BENCHMARK)
  assert code == 2
  assert "imagenet2012 is not in" in output
  assert "mlpvision.prepare imagenet2012" in output
  code, output = here("-m", "mlpvision.benchmark", "--config=configs/s2mlp_wide.py")
  assert code == 2
  assert "data|step|train" in output


_PARENT = """
import os, subprocess, sys
from benchmarks import contender
from mlpvision.benchmark import usage
work = "import time\\nx = b'1' * 50_000_000\\nwhile time.process_time() < 0.4: pass\\nprint(flush=True)\\n"
cpu, memory = usage.cpu_seconds(), contender.memory_bytes(os.getpid())
subprocess.run([sys.executable, "-c", work], check=True, stdout=subprocess.DEVNULL)
pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
with subprocess.Popen([sys.executable, "-c", work + "input()"], **pipes) as child:
  child.stdout.readline()
  print(usage.cpu_seconds() - cpu, contender.memory_bytes(os.getpid()) - memory)
  child.communicate(b"\\n")
"""


@pytest.mark.skipif(not usage.COMPLETE, reason="needs /proc")
def test_usage_counts_children(command):
  """One that still runs and one that has ended, each with 0.4 seconds of work; and 50 MB.

  Their parent is a small process of its own: what this one shares with its other children comes and goes.
  """
  code, output = command("-c", _PARENT)
  assert code == 0, output
  cpu, memory = map(float, output.split())
  assert 0.75 < cpu < 1.5
  assert 45e6 < memory < 80e6


def test_synthetic_images_are_shaped_like_imagenet(monkeypatch):
  images = synthetic.make_images(8)
  assert images == synthetic.make_images(8)
  assert len(set(images)) == 8
  assert all(Image.open(io.BytesIO(data)).size == (500, 375) for data in images)
  assert 100_000 < np.mean([len(data) for data in images]) < 125_000
  monkeypatch.setattr(synthetic.importlib.util, "find_spec", lambda name: None)
  generated = synthetic.make_images(4)
  assert 100_000 < np.mean([len(data) for data in generated]) < 125_000
  assert not set(images) & set(generated)


def test_pillow_s_operations_do_something():
  photo = Image.open(io.BytesIO(synthetic.make_images(1)[0])).resize((64, 64))
  fill = (124, 116, 104)
  results = [timm_randaugment.apply(name, photo, 9, 1, fill) for name in timm_randaugment.INCREASING]
  assert {(result.size, result.mode) for result in results} == {((64, 64), "RGB")}
  assert len({result.tobytes() for result in [photo, *results]}) == 16
  random.seed(0)
  several = [pillow.randaugment(photo, fill) for _ in range(20)]
  assert len({result.tobytes() for result in several}) > 10  # a quarter of them are left as they are


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.skipif(not usage.COMPLETE, reason="needs /proc")
def test_memory_stays_low(command, tmp_path):
  """Two workers on 10,000 images of ImageNet's size, for many batches: under 700 MB, and no more at the end."""
  path = tmp_path / "result.json"
  settings = ("--config.data.workers=2", "--config.data.batch_size=64", f"--json={path}")
  code, output = command(*_BENCHMARK, *settings, "--synthetic=10000", "--rounds=8", "--seconds=1")
  assert code == 0, output
  rounds = json.loads(path.read_text())["loaders"]["ours"]
  memory = [turn["memory"] for turn in rounds]
  assert sum(turn["images"] for turn in rounds) > 1500
  assert max(memory) < 700e6
  assert max(memory[4:]) < 1.05 * max(memory[:4])
