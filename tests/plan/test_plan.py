"""The command as its users run it, with and without libtpu."""

import concurrent.futures
import importlib.util
import json
import re
import time

from conftest import SMALL
import ml_collections
import pytest

from configs import s2mlp_wide
from docs.tools import plan_page
from mlpvision.errors import UserError
from mlpvision.plan import chips, images, plans, program

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan`")
_HAS_CUDA = importlib.util.find_spec("jax_cuda13_plugin") is not None


@pytest.mark.parametrize(
  ("topology", "message"),
  [
    ("v5e-16", r"v5e-16(.|\n)*v5e:4x4"),
    ("v9:2x2", "v9:2x2"),
    ("v5e:4x4x4", "2 dimensions .* 256 chips"),
    ("v5e:32x32", "256 chips"),
    ("v5p:2x2", "3 dimensions"),
    ("rtx4090:8", "rtx4090:8"),
    ("h100:2x4x8", "2 dimensions"),
  ],
)
def test_what_is_no_slice_is_refused(topology, message):
  with pytest.raises(UserError, match=message):
    chips.parse(topology)


def test_gpus_are_counted_by_host():
  assert chips.parse("h100:8")[1] == (1, 8)
  chip, shape = chips.parse("h200:2x8")
  assert (chip.kind, shape) == ("GPU", (2, 8))
  assert chip.hbm == pytest.approx(0.75 * 141, rel=0.01)


def test_mistakes_are_told_before_anything_is_compiled(here):
  code, output = here("-m", "mlpvision.plan", "--config=configs/s2mlp_wide.py", "--topology=v5e-16")
  assert code == 2
  assert "error: --topology='v5e-16'" in output
  assert "v5e:4x4" in output
  code, output = here("-m", "mlpvision.plan", "--topology=v5e:4x4")
  assert code == 2
  assert "--config=FILE or --all" in output


def test_a_long_compilation_says_that_it_goes_on(capsys):
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    assert plans.wait(pool.submit(lambda: time.sleep(0.5) or 7), every=0.1) == 7
    assert capsys.readouterr().out.startswith("  still compiling after 0 min ...\n")
    with pytest.raises(UserError, match="no such slice"):
      plans.wait(pool.submit(_raise, UserError("no such slice")))
  assert not capsys.readouterr().out


def _raise(error):
  raise error


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_extra_is_named():
  with pytest.raises(UserError, match=r"libtpu[^']*pip install 'mlpvision\[plan\]'"):
    chips.devices("v5e:4x4")


@pytest.mark.skipif(_HAS_CUDA, reason="the CUDA plugin is installed")
def test_without_the_cuda_plugin_the_extra_is_named():
  with pytest.raises(UserError, match=r"CUDA plugin(.|\n)*pip install 'mlpvision\[cuda\]'"):
    chips.devices("h100:8")


@pytest.mark.parametrize(
  ("name", "split", "expected"),
  [
    ("imagenet2012", "train", (1_281_167, 1000)),
    ("imagenet2012", "train[:99%]", (1_268_355, 1000)),
    ("imagenet2012", "train[10000:]", (1_271_167, 1000)),
    ("imagenet21k/fall11", "train", (14_145_922, 21_841)),
    ("imagenet21k/fall11_256", "validation", (51_200, 21_841)),
    ("mnist5k", "train", (4000, 10)),
    ("ade20k", "train", (20_210, 150)),
  ],
)
def test_sizes_need_no_dataset(name, split, expected):
  data = {"name": name, "train_split": split, "data_dir": "/nowhere"}
  assert images.count(ml_collections.ConfigDict({"data": data})) == expected


def test_sizes_that_are_not_known_have_to_be_given():
  data = {"name": "cifar10", "train_split": "train", "data_dir": "/nowhere"}
  config = ml_collections.ConfigDict({"data": data})
  with pytest.raises(UserError, match=r"cifar10.*--images=N --classes=N"):
    images.count(config)
  assert images.count(config, images=50_000, classes=10) == (50_000, 10)
  config.data.update(name="imagenet2012", train_split="training")
  with pytest.raises(UserError, match="training"):
    images.count(config)


def test_only_what_is_between_the_markers_is_written(tmp_path):
  path = tmp_path / "page.md"
  plan_page.write(path, "first")
  assert path.read_text() == "# Performance\n\n<!-- plan: begin -->\nfirst\n<!-- plan: end -->\n"
  path.write_text(f"before\n{path.read_text()}after\n")
  plan_page.write(path, "| second |")
  assert path.read_text() == ("before\n# Performance\n\n<!-- plan: begin -->\n| second |\n<!-- plan: end -->\nafter\n")
  path.write_text("no markers")
  with pytest.raises(UserError, match="plan: begin"):
    plan_page.write(path, "third")
  assert path.read_text() == "no markers"


def test_a_store_keeps_what_was_found(tmp_path):
  path = tmp_path / "plan.json"
  program.Store(path).put("key", {"out_of_memory": "too much"})
  assert program.Store(path).programs == {"key": {"out_of_memory": "too much"}}
  path.write_text("[]")
  with pytest.raises(UserError, match=r"plan\.json .*--json"):
    program.Store(path)


@needs_libtpu
def test_a_small_model_is_planned_twice_alike_and_an_absurd_batch_does_not_fit(command, tmp_path):
  """Twice compiled, the same numbers; a third time, nothing is compiled; and the compiler's own out of memory."""
  plan = ("-m", "mlpvision.plan", *SMALL, "--topology=v5e:2x2")
  outputs, programs = [], []
  for name in ("a", "b", "a"):
    code, output = command(*plan, "--kernels=3", f"--json={tmp_path}/{name}.json")
    assert code == 0, output
    outputs.append(output)
    programs.append(json.loads((tmp_path / f"{name}.json").read_text()))
  assert outputs[0] == outputs[1] == outputs[2]
  assert programs[0] == programs[1] == programs[2]
  (found,) = programs[0]["plans"]
  assert (found["name"], found["first"]["topology"], found["fitted"]) == ("quickstart", "v5e:2x2", None)
  assert found["estimate"]["seconds"] == pytest.approx(found["first"]["found"]["cycles"] / 1.5e9)
  for line in ("3,722 in the whole model .* arithmetic", "all-reduce .* compiler", "cycles  .* compiler", "recipe .*"):
    assert_line(outputs[0], line)
  code, output = command(*plan, "--config.data.batch_size=4000000", "--config.duration=100 steps")
  assert code == 0, output
  assert_line(output, r"  RESOURCE_EXHAUSTED: .* exceeds available HBM \(15.75G\)")
  assert "--config.accumulation_steps=N" in output


@pytest.mark.skipif(not _HAS_CUDA, reason="needs the extra `cuda`")
def test_a_small_model_is_planned_for_gpus_and_an_absurd_batch_does_not_fit(command):
  plan = ("-m", "mlpvision.plan", *SMALL, "--topology=h100:2")
  code, output = command(*plan, "--kernels=3")
  assert code == 0, output
  for line in (
    "2 GPUs, mesh data=2",
    "peak of HBM .* compiler",
    "all-reduce .* compiler",
    "no estimate: XLA .* refused",
  ):
    assert_line(output, line)
  code, output = command(*plan, "--config.data.batch_size=8000000", "--config.duration=100 steps")
  assert code == 0, output
  assert_line(output, r"  \(.*G\) exceeds available memory \(59.33G\)")
  assert "--config.accumulation_steps=N" in output


@needs_libtpu
@pytest.mark.slow
def test_weights_that_are_cut_are_gathered_whole(tmp_path):
  """Not product by product in loops, which send the parts around by collective-permute."""
  config = s2mlp_wide.get_config()
  config.model.num_blocks = 1
  config.data.batch_size = 256
  config.mesh.fsdp = 4
  options = dict(num_images=2560, num_classes=1000, store=program.Store(tmp_path / "programs.json"))
  collectives = program.compile_step(config, "v5e:2x2", **options).found["collectives"]
  assert set(collectives) == {"all-gather", "all-reduce"}


def assert_line(output, pattern):
  assert any(re.search(pattern, line) for line in output.splitlines()), f"{pattern} not in\n{output}"
